"""Pairs that differ: in the padding of their vocabularies, in their tokens, and the wrong way in size."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from mta_framework.errors import InputError
from mta_framework.registry import discover
from mta_framework.runs import pipeline
from mta_framework.runs.plugin_binding import bind


def bound(path, *overrides):
    return bind(path, discover(), overrides)


@pytest.fixture
def pair(spec_dict, tokenizer_folder, tmp_path):
    """A spec of a student whose head has 512 rows, and a teacher on disk with 520; the tokenizer has 500 tokens."""
    config = spec_dict["student"]["config"]
    torch.manual_seed(0)
    teacher = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config | {"vocab_size": 520, "hidden_size": 32}))
    teacher.save_pretrained(tmp_path / "large")
    AutoTokenizer.from_pretrained(tokenizer_folder).save_pretrained(tmp_path / "large")
    student = {"config": config | {"vocab_size": 512}, "tokenizer": str(tokenizer_folder)}
    return {**spec_dict, "teacher": {"path": str(tmp_path / "large")}, "student": student}


@pytest.mark.slow
def test_vocabularies_that_differ_by_padding_run_to_the_end(pair, write_spec, tmp_path):
    report = pipeline.run(bound(write_spec(pair)))
    logged = [entry["kl"] for entry in report.log if "kl" in entry]
    assert len(logged) == 4
    assert logged[-1] < logged[0]
    student = tmp_path / "runs" / "student" / "student"
    weights = load_file(student / "model.safetensors")
    assert weights["model.embed_tokens.weight"].shape == (512, 16)
    assert json.loads((student / "config.json").read_text())["vocab_size"] == 512
    assert {score.model for score in report.evaluation.scores} == {"student", "teacher", "initial_student"}


def test_a_teacher_with_the_smaller_head_is_accepted_too(pair, write_spec):
    pair["student"]["config"]["vocab_size"] = 528
    assert pipeline.plan(bound(write_spec(pair))).models["student"].parameters > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "base_loss",
    [{"name": "kl", "params": {"cross_entropy": 0.5, "batches": {"policy": "on_policy", "fraction": 1.0}}},
     {"name": "distillm2", "params": {"anchor_steps": 1}}],
    ids=["on_policy", "pairs"],
)  # fmt: skip
def test_responses_are_made_of_tokens_that_both_models_know(pair, write_spec, base_loss):
    # A student of random weights would choose an id beyond the tokenizer's 500 in one of twenty cases.
    pair["student"]["config"]["vocab_size"] = 528
    training = {**pair["training"], "generation": {"max_new_tokens": 24}}
    changes = {"base_loss": base_loss, "training": training, "evaluation": None}
    report = pipeline.run(bound(write_spec(pair | changes)))
    assert len([entry for entry in report.log if "loss" in entry]) == 4


def test_tokens_that_differ_are_refused_before_training(pair, write_spec, tmp_path):
    path = tmp_path / "large" / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    merged = [token for token in tokenizer["model"]["vocab"] if len(token) > 3][:2]
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary[merged[0]], vocabulary[merged[1]] = vocabulary[merged[1]], vocabulary[merged[0]]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(InputError, match=r"student\.tokenizer: differs from the teacher's in 2 tokens"):
        pipeline.plan(bound(write_spec(pair)))


def test_a_student_larger_than_its_teacher_is_warned_of_once(pair, write_spec, caplog):
    path = write_spec(pair)
    pipeline.plan(bound(path))
    assert not [record for record in caplog.records if record.name == "mta_framework.runs.model_checks"]
    larger = pipeline.plan(bound(path, "student.config.hidden_size=64"))
    sizes = f"{larger.models['student'].parameters:,} and {larger.models['teacher'].parameters:,}"
    (record,) = [record for record in caplog.records if record.name == "mta_framework.runs.model_checks"]
    assert record.getMessage().startswith(f"student: has more parameters than its teacher (got {sizes})")


def test_plan_counts_both_responses_to_a_prompt(pair, write_spec):
    training = {**pair["training"], "generation": {"max_new_tokens": 24}}
    path = write_spec(pair | {"alignment": None})
    single = pipeline.plan(bound(path, "data.max_length=100", "data.max_prompt_length=80")).memory.bytes_by_part
    path = write_spec(pair | {"alignment": None, "base_loss": {"name": "distillm2"}, "training": training})
    double = pipeline.plan(bound(path, "data.max_length=100", "data.max_prompt_length=76")).memory.bytes_by_part
    # Not exactly twice: the responses of the data, which the single batch has, may be longer than those generated.
    assert 1.5 < double["activations"] / single["activations"] < 2.5
    assert double["student weights"] == single["student weights"]
