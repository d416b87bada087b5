"""What a change of a field affects."""

from __future__ import annotations

import pytest

from mta_framework.spec.effects import differences, effect_of
from mta_framework.spec.evaluation_spec import EvaluationSpec
from mta_framework.spec.run import RunSpec


@pytest.mark.parametrize(
    ("field", "effect"),
    [
        ("name", "nothing"),
        ("seed", "weights"),
        ("output_dir", "nothing"),
        ("teacher.dtype", "weights"),
        ("teacher.attention", "nothing"),
        ("student.attention", "nothing"),
        ("training.optimizer", "weights"),
        ("student.lora.rank", "weights"),
        ("data.train.path", "weights"),
        ("data.parse", "weights"),
        ("data.processes", "nothing"),
        ("data.cache_dir", "nothing"),
        ("base_loss.params.temperature", "weights"),
        ("alignment.spans.params.model", "weights"),
        ("training.batch_size", "weights"),
        ("training.micro_batch_size", "nothing"),
        ("training.generation.engine", "weights"),
        ("training.generation.max_new_tokens", "weights"),
        ("training.generation.batch_tokens", "nothing"),
        ("training.eval_steps", "weights"),
        ("training.load_best_model_at_end", "weights"),
        ("training.metric_for_best_model", "weights"),
        ("training.eval_prompts", "weights"),
        ("training.early_stopping_patience", "weights"),
        ("training.early_stopping_threshold", "weights"),
        ("training.save_steps", "nothing"),
        ("training.keep_checkpoints", "nothing"),
        ("training.log_steps", "nothing"),
        ("training.trackers", "nothing"),
        ("evaluation", "responses"),
        ("evaluation.sets.dolly.limit", "responses"),
        ("evaluation.temperature", "responses"),
        ("evaluation.top_p", "responses"),
        ("evaluation.max_new_tokens", "responses"),
        ("evaluation.max_prompt_length", "responses"),
        ("evaluation.engine", "responses"),
        ("evaluation.metrics", "scores"),
        ("evaluation.seeds", "scores"),
        ("evaluation.models", "nothing"),
        ("evaluation.long_prompts", "nothing"),
        ("evaluation.batch_tokens", "nothing"),
    ],
)
def test_a_field_of_a_run_affects(field, effect):
    assert effect_of(RunSpec, field) == effect


def test_a_field_that_this_version_does_not_know_counts_as_its_section():
    assert effect_of(RunSpec, "something") == "weights"
    assert effect_of(RunSpec, "training.something") == "weights"
    assert effect_of(RunSpec, "evaluation.something.inner") == "responses"


def test_the_folder_of_an_evaluation_affects_nothing_and_its_model_the_responses():
    assert effect_of(EvaluationSpec, "folder") == "nothing"
    assert effect_of(EvaluationSpec, "model.dtype") == effect_of(EvaluationSpec, "template") == "responses"


def test_every_top_level_field_says_what_it_affects():
    for spec in (RunSpec, EvaluationSpec):
        fields = spec.model_json_schema()["properties"]
        assert [name for name, field in fields.items() if "affects" not in field] == []


def test_differences_are_those_of_the_fields_asked_for_by_their_dotted_names():
    then = {"name": "a", "seed": 1, "training": {"batch_size": 8, "log_steps": 1}, "evaluation": None}
    now = {"name": "b", "seed": 1, "training": {"batch_size": 16, "log_steps": 9}, "evaluation": {"seeds": [1]}}
    assert list(differences(RunSpec, then, now, ["weights"])) == [("training.batch_size", 8, 16)]
    assert list(differences(RunSpec, then, now, ["responses"])) == [("evaluation", None, {"seeds": [1]})]
    part = differences(RunSpec, {"top_p": 1.0, "seeds": [1]}, {"top_p": 0.9}, ["responses", "scores"], "evaluation")
    assert list(part) == [("evaluation.top_p", 1.0, 0.9), ("evaluation.seeds", [1], None)]


def test_a_section_that_affects_nothing_may_hold_a_field_that_does_and_has_its_default_without_it():
    then, exact, rounded = ({"teacher": {"cache": cache}} for cache in (None, {"path": "a"}, {"layer_states": "8bit"}))
    assert list(differences(RunSpec, then, exact, ["weights"])) == []
    expected = ("teacher.cache.layer_states", "exact", "8bit")
    assert list(differences(RunSpec, then, rounded, ["weights"])) == [expected]
    assert list(differences(RunSpec, rounded, then, ["weights"])) == [(expected[0], *expected[:0:-1])]
