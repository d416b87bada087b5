"""A whole run: teacher by its own spec, student with MTA, evaluation, report."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from mta_framework import TOKENS, LossTerm
from mta_framework.errors import Fault, InputError, RunError
from mta_framework.memory_estimate.traced_step import TEACHER_WEIGHTS
from mta_framework.models import run_models
from mta_framework.models.teacher_states import Teacher
from mta_framework.registry import discover
from mta_framework.runs import pipeline
from mta_framework.runs.plugin_binding import bind

pytestmark = pytest.mark.slow


@pytest.fixture
def run():
    def run(path, *overrides, resume=False):
        return pipeline.run(bind(path, discover(), overrides), resume=resume)

    return run


def weights(folder):
    return load_file(folder / "student" / "model.safetensors")


def test_run_leaves_a_student_predictions_and_a_report(run_once, spec_dict, write_spec, tmp_path):
    report = run_once(write_spec(spec_dict))
    folder = tmp_path / "runs" / "student"
    assert json.loads((folder / "report.json").read_text())["name"] == "student"
    files = {"report.html", "report.md", "spec.json", "training.json", "student/README.md"}
    assert files <= {path.relative_to(folder).as_posix() for path in folder.rglob("*")}

    student = AutoModelForCausalLM.from_pretrained(folder / "student")
    tokenizer = AutoTokenizer.from_pretrained(folder / "student")
    assert student.config.hidden_size == 16
    assert len(tokenizer) == student.config.vocab_size
    assert not [name for name in weights(folder) if "alignment" in name or "projection" in name]

    predictions = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jsonl"))
    models = ("initial_student", "student", "teacher")
    assert predictions == [f"predictions/{model}/seen-seed{seed}.jsonl" for model in models for seed in (10, 20)]
    logged = [entry for entry in report.log if "kl" in entry]
    assert [entry["step"] for entry in logged] == [1, 2, 3, 4]
    for entry in logged:
        assert entry["loss"] == pytest.approx(entry["kl"] + 2.0 * entry["dsa"] + 0.2 * entry["hid"], rel=1e-5)
    assert any("eval_kl" in entry for entry in report.log)


@pytest.mark.usefixtures("trained_teacher", "no_page")
def test_same_seed_gives_the_same_bits_and_another_seed_others(run, spec_dict, write_spec, tmp_path):
    path = write_spec({**spec_dict, "evaluation": None})
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(path, f"name={name}", f"seed={seed}")
    a, b, c = (weights(tmp_path / "runs" / name) for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


def test_a_finished_run_is_refused_then_only_evaluated_anew(run, run_once, spec_dict, write_spec, tmp_path):
    path = write_spec(spec_dict)
    first = run_once(path)
    before = (tmp_path / "runs" / "student" / "student" / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(InputError, match="already holds a run"):
        run(path)
    second = run(path, "evaluation.seeds=[10]", resume=True)
    assert second.evaluation.seeds == (10,)
    assert (tmp_path / "runs" / "student" / "student" / "model.safetensors").stat().st_mtime_ns == before
    firsts = {(score.model, score.set): score.per_seed[0] for score in first.evaluation.scores}
    assert firsts == {(score.model, score.set): score.per_seed[0] for score in second.evaluation.scores}


@pytest.mark.usefixtures("no_page")
def test_a_second_run_parses_nothing_and_trains_no_teacher_again(
    run, run_once, spec_dict, write_spec, tmp_path, monkeypatch
):
    path = write_spec({**spec_dict, "evaluation": None})
    run_once(path)
    teacher = tmp_path / "runs" / "teacher" / "student" / "model.safetensors"
    before = teacher.stat().st_mtime_ns
    monkeypatch.setattr("mta_plugins.span_extractors.spacy_phrases.SpacyPhrases.extract", None)
    run(path, "name=again")
    assert teacher.stat().st_mtime_ns == before


VARIANTS = {
    "words only, no teacher states in Hid": {
        "alignment": {
            "spans": {"name": "words"},
            "layers": {"name": "proportional", "params": {"words": 2, "phrases": 0}},
            "importance": {"name": "uniform"},
            "terms": [{"name": "dsa", "weight": 2.0}],
        }
    },
    "no alignment": {"alignment": None},
    "accumulation, bf16, checkpointing": {
        "training": {
            "max_steps": 3,
            "batch_size": 8,
            "micro_batch_size": 2,
            "precision": "bf16",
            "gradient_checkpointing": True,
            "log_steps": 1,
            "trackers": [],
        }
    },
    "LoRA": {"student": {"teacher_layers": [1, 3], "lora": {"rank": 2}}, "alignment": None},
    "LoRA and MTA": {
        "student": {"teacher_layers": [1, 2, 3, 4], "lora": {"rank": 2, "target_modules": ["q_proj"]}},
    },
    "batch reduction, sum over layers": {
        "alignment": {
            "spans": {"name": "spacy_phrases"},
            "terms": [
                {"name": "dsa", "weight": 2.0, "params": {"reduction": "batch"}},
                {"name": "hid", "weight": 0.2, "params": {"reduction": "sum"}},
            ],
        }
    },
}


@pytest.mark.usefixtures("trained_teacher")
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_variant_trains_and_exports(changes, run, spec_dict, write_spec, tmp_path):
    report = run(write_spec({**spec_dict, "evaluation": None, **changes}))
    logged = [entry for entry in report.log if "loss" in entry]
    assert [entry["step"] for entry in logged] == [*range(1, report.steps + 1)]
    aligned = {term["name"] for term in (report.spec["alignment"] or {"terms": ()})["terms"]}
    assert all(aligned <= entry.keys() for entry in logged)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "runs" / "student" / "student")
    assert not [name for name, _ in model.named_parameters() if "lora" in name]


@pytest.mark.slow
@pytest.mark.usefixtures("trained_teacher", "no_page")
def test_choices_of_the_authors_code_train_together(run, spec_dict, write_spec):
    data = {
        "max_prompt_length": 60,
        "long_prompts": "first_tokens",
        "add_special_tokens": False,
        "leading_character": "any",
    }
    alignment = {
        "spans": {"name": "spacy_phrases", "params": {"words": "within_each_phrase"}},
        "importance": {"name": "entropy"},
        "pooling": {"name": "attention", "params": {"padding_rows": True}},
        "terms": [
            {"name": "dsa", "weight": 0.2, "params": {"weights": "equal"}},
            {"name": "hid", "weight": 0.2},
        ],
    }
    changes = {"data": {**spec_dict["data"], **data}, "alignment": alignment, "evaluation": None}
    report = run(write_spec({**spec_dict, **changes}))
    assert [entry["step"] for entry in report.log if {"loss", "dsa", "hid"} <= entry.keys()] == [1, 2, 3, 4]
    assert report.data["train"].left_out == 0
    assert report.data["train"].cut_prompts > 0
    assert report.spec["alignment"]["pooling"]["params"] == {"padding_rows": True}


@pytest.mark.usefixtures("trained_teacher", "no_page")
def test_learning_from_the_teacher_lowers_the_loss(run, spec_dict, write_spec):
    spec_dict["training"] = {**spec_dict["training"], "max_steps": 40, "learning_rate": 5e-3}
    report = run(write_spec({**spec_dict, "evaluation": None}))
    losses = [entry["loss"] for entry in report.log if "kl" in entry]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@pytest.mark.usefixtures("trained_teacher")
def test_rows_without_spans_and_empty_responses_train(run, spec_dict, write_spec, tmp_path):
    rows = [
        {"instruction": "?", "output": ""},
        {"instruction": "😀", "output": "日本語"},
        {"instruction": "Name it.\r\n", "output": "...\r\n"},
        {"instruction": "a " * 5000, "output": "left out"},
    ] * 4
    path = tmp_path / "odd.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    spec_dict["data"] = {
        **spec_dict["data"],
        "train": {"path": str(path)},
        "validation": None,
        "max_prompt_length": 150,
    }
    report = run(write_spec({**spec_dict, "evaluation": None}))
    assert report.data["train"].left_out == 4
    assert [entry["step"] for entry in report.log if "loss" in entry] == [1, 2, 3, 4]


def test_a_teacher_that_is_only_evaluated_is_neither_loaded_nor_run_in_training(
    run, spec_dict, write_spec, monkeypatch
):
    loads, load, train = [], run_models.load_teacher, pipeline.train

    def counted_load(*arguments):
        loads.append(arguments)
        return load(*arguments)

    def train_alone(*arguments):
        assert not loads
        return train(*arguments)

    monkeypatch.setattr(run_models, "load_teacher", counted_load)
    monkeypatch.setattr(pipeline, "train", train_alone)
    monkeypatch.setattr(Teacher, "states", lambda *_: pytest.fail("the teacher is run"))
    evaluation = {**spec_dict["evaluation"], "seeds": [10]}
    changes = {"base_loss": {"name": "sft"}, "alignment": None, "evaluation": evaluation}
    path = write_spec({**spec_dict, **changes})
    memory = pipeline.plan(bind(path, discover())).memory
    assert not memory.problem
    assert not memory.bytes_by_part.get(TEACHER_WEIGHTS)
    report = run(path)
    assert {score.model for score in report.evaluation.scores} == {"student", "teacher", "initial_student"}
    assert len(loads) == 1


@pytest.mark.usefixtures("trained_teacher")
def test_a_fault_that_evaluation_meets_says_that_the_student_is_kept(run, spec_dict, write_spec, monkeypatch):
    path = write_spec(spec_dict)

    def fail(*_):
        raise InputError([Fault("evaluation.models", "cannot be loaded", "a model", "Mend it.")])

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "models_of_run", fail)
        kept = r"Mend it\.\nThe student is trained and kept: correct this, then continue with --resume\.$"
        with pytest.raises(RunError, match=rf"^evaluation\.models: cannot be loaded; expected a model\. {kept}"):
            run(path)
    assert run(path, resume=True).steps == 4


def test_a_fault_that_the_evaluation_of_the_teachers_run_meets_names_its_spec(
    run, spec_dict, write_spec, tmp_path, monkeypatch
):
    teacher = json.loads((tmp_path / "teacher.json").read_text())
    teacher["evaluation"] = {"sets": spec_dict["evaluation"]["sets"], "max_new_tokens": 3}
    (tmp_path / "teacher.json").write_text(json.dumps(teacher))

    def fail(*_):
        raise InputError([Fault("evaluation.models", "cannot be loaded", "a model", "Mend it.")])

    monkeypatch.setattr(pipeline, "models_of_run", fail)
    with pytest.raises(RunError, match=rf"^teacher\.run: {tmp_path}/teacher\.json: evaluation\.models: cannot be"):
        run(write_spec({**spec_dict, "evaluation": None}))


def test_a_gradient_that_overflows_stops_the_run_before_it_is_clipped_to_zero(run, spec_dict, write_spec, monkeypatch):
    def steep(_, student, teacher, batch, progress):
        states = student.final_BTD
        return (LossTerm("kl", ((states - states.detach()) * 1e25).sum(), TOKENS),)

    path = write_spec({**spec_dict, "alignment": None, "evaluation": None})
    monkeypatch.setattr(type(bind(path, discover()).base_loss), "compute", steep)
    with pytest.raises(RunError, match=r"^training step 1: the gradient is not finite\. The run stops"):
        run(path)


def test_plan_trains_nothing_and_counts_what_would_be(spec_dict, write_spec, tmp_path):
    plan = pipeline.plan(bind(write_spec(spec_dict), discover()))
    assert plan.steps == 4
    assert plan.data["train"].used == 36
    assert plan.models["student"].trainable == plan.models["student"].parameters
    assert plan.models["teacher"].trainable == 0
    assert [str(pair) for pair in plan.layer_pairs] == ["2->2 words", "3->3 phrases", "4->4 phrases"]
    assert not list((tmp_path / "runs").glob("*/student"))
    assert set(plan.spans) == {"words", "phrases"}


@pytest.mark.parametrize(
    ("pairs", "got"),
    [
        ("[]", r"return at least one pair, of the granularities words alone"),
        (
            '[LayerPair(9, 1, "words")]',
            r"name pairs within layers 1 to 4 of the student and 1 to 4 of the teacher \(got 9->1\)",
        ),
        (
            '[LayerPair(1, 1, "letters")]',
            r"return at least one pair, of the granularities words alone \(got 1->1 letters\)",
        ),
    ],
)
def test_mapper_that_breaks_its_contract_is_named_before_anything_is_trained(
    pairs, got, spec_dict, write_spec, tmp_path
):
    plugin = tmp_path / "mapper.py"
    plugin.write_text(f"""
from mta_framework import LayerMapper, LayerPair, hookimpl

class Odd(LayerMapper):
    NAME = "odd"
    granularities = ("words",)

    def map(self, student, teacher):
        return {pairs}

@hookimpl
def mta_register_layer_mappers():
    return (Odd,)
""")
    spec_dict["alignment"] = {**spec_dict["alignment"], "layers": {"name": "odd"}}
    with pytest.raises(RunError, match=rf"^layer mapper 'odd' must {got}$"):
        pipeline.run(bind(write_spec(spec_dict), discover([plugin])))
    assert not list((tmp_path / "runs").glob("*/student"))
