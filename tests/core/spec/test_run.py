from __future__ import annotations

from contextlib import nullcontext

import pytest
from pydantic import ValidationError

from mta_framework.spec.alignment import AlignmentSection
from mta_framework.spec.evaluation import EvaluationSection
from mta_framework.spec.evaluation_spec import EvaluationSpec
from mta_framework.spec.run import RunSpec
from mta_framework.spec.section import Section
from mta_framework.spec.teacher import TeacherSection
from mta_framework.spec.training import TrainingSection


def test_contradictions_are_refused_without_a_file_as_well() -> None:
    with pytest.raises(ValidationError, match=r"contradicts itself.*must divide batch_size"):
        TrainingSection(epochs=1, max_steps=2, batch_size=4, micro_batch_size=3)


def test_the_defaults_are_those_of_the_paper() -> None:
    alignment, training = AlignmentSection(spans={"name": "words"}), TrainingSection(epochs=5)
    assert [(term.name, term.weight) for term in alignment.terms] == [("dsa", 2.0), ("hid", 0.2)]
    assert alignment.projection_learning_rate == 5e-4
    assert (training.batch_size, training.learning_rate, training.weight_decay) == (16, 1e-4, 0.01)
    assert (training.schedule, training.max_grad_norm, training.warmup_ratio) == ("cosine", 1.0, 0.0)
    evaluation = EvaluationSection(sets={"test": {"path": "test.jsonl"}})
    assert evaluation.seeds == [10, 20, 30, 40, 50]
    assert (evaluation.temperature, evaluation.top_p, evaluation.max_new_tokens) == (0.7, 1.0, 512)


@pytest.mark.parametrize(
    ("temperature", "is_refused"),
    [(0.0, False), (0.009, True), (0.01, False), (2.0, False), (2.001, True)],
)
def test_vllm_is_asked_only_for_temperatures_that_it_samples_at(temperature: float, is_refused: bool) -> None:
    sampling = {"sets": {"test": {"path": "test.jsonl"}}, "seeds": [1], "temperature": temperature}
    assert EvaluationSection(**sampling, engine="transformers").temperature == temperature
    with pytest.raises(ValidationError, match=r"from 0\.01 to 2") if is_refused else nullcontext():
        EvaluationSection(**sampling, engine="vllm")


def test_sections_are_immutable() -> None:
    teacher = TeacherSection(hub="gpt2")
    with pytest.raises(ValidationError, match="frozen"):
        teacher.hub = "gpt2-xl"


def test_a_dumped_spec_with_all_defaults_spelt_out_is_valid_again() -> None:
    greedy = {"sets": {"test": {"path": "t.jsonl"}}, "temperature": 0, "seeds": [1]}
    spec = RunSpec.model_validate(
        {
            "name": "x",
            "teacher": {"hub": "a"},
            "student": {"hub": "b"},
            "data": {"train": {"path": "r.jsonl"}},
            "base_loss": {"name": "kl"},
            "alignment": {"spans": {"name": "words"}, "terms": [{"name": "dsa", "weight": 1}]},
            "training": {"epochs": 1},
            "evaluation": greedy,
        }
    )
    assert RunSpec.model_validate(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize("kind", [RunSpec, EvaluationSpec])
def test_every_field_is_described_and_every_required_one_has_an_example(kind: type[Section]) -> None:
    schema = kind.model_json_schema()
    for score_config in (schema, *schema["$defs"].values()):
        for name, field in score_config["properties"].items():
            assert field.get("description") or "$ref" in field, name
            assert name not in score_config.get("required", ()) or field.get("examples"), name
