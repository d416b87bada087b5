"""Answers to validation prompts: which prompts, how they are sampled, and what the metric sees."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from mta_framework import InputError, Metric, ScoreSet
from mta_framework.generation.sampling_settings import Generation
from mta_framework.models.turn_end import settle_turn_end
from mta_framework.registry import discover
from mta_framework.runs.plugin_binding import bind
from mta_framework.runs.preparation import prepare_run
from mta_framework.runs.summary import reported_data
from mta_framework.runs.validation_answers import validation_answers
from mta_framework.spec.run import RunSpec


class Lengths(Metric):
    """The number of characters of an answer, weighted by those of its reference."""

    NAME = "lengths"

    def score(self, generations):
        self.seen = generations
        weights = tuple(float(len(texts[0])) for texts in generations.references)
        return ScoreSet(tuple(float(len(text)) for text in generations.predictions), weights)


@pytest.fixture
def build(spec_dict, tokenizer_folder):
    def build(chat_template=None, **training):
        settings = {"load_best_model_at_end": True, "metric_for_best_model": "lengths", "generation": {}, **training}
        spec = {**spec_dict, "teacher": None, "alignment": None, "evaluation": None, "student": {"hub": "none"}}
        spec["training"] = {**spec["training"], **settings}
        asked = []

        def generate(by, prompt_ids, sampling, seeds, *, version):
            asked.append((by, list(prompt_ids), sampling, version))
            return [Generation((), "x" * (row + 1), True) for row in range(len(prompt_ids))]

        engine = SimpleNamespace(generate=generate)
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
        if chat_template:
            tokenizer.chat_template = chat_template
            spec["data"] = {**spec["data"], "template": "chat"}
        return validation_answers(
            RunSpec.model_validate(spec),
            Lengths(Lengths.Params()),
            engine,
            None,
            tokenizer,
            settle_turn_end(tokenizer, ()),
        ), asked

    return build


def test_the_first_prompts_are_answered_greedily_within_the_limits_of_training(build):
    answers, asked = build(eval_prompts=2)
    answers.mean_score(7)
    ((by, prompts, sampling, version),) = asked
    assert (by, len(prompts), version) == ("student", 2, 7)
    assert (sampling.temperature, sampling.max_new_tokens) == (0.0, 40)
    assert answers.tokenizer.decode(prompts[0]) == answers.prompts[0]
    assert answers.questions[0].startswith("Say what the old keeper did.")


def test_the_mean_is_the_metric_s_own_with_its_weights(build):
    answers, _ = build(eval_prompts=3)
    value = answers.mean_score(1)
    weights = [len(texts[0]) for texts in answers.references]
    assert value == pytest.approx(sum(w * n for w, n in zip(weights, (1, 2, 3), strict=True)) / sum(weights))


def test_all_prompts_that_are_short_enough_are_answered_without_a_limit(build):
    answers, _ = build()
    assert len(answers.prompts) == len(answers.prompt_ids) == 6


def test_prompts_that_are_too_long_to_be_answered_are_counted(spec_dict, write_spec, tokenizer_folder, tmp_path):
    rows = [{"prompt": "say it " * (60 if index < 3 else 1), "completion": "it"} for index in range(8)]
    (tmp_path / "validation.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    training = {"load_best_model_at_end": True, "metric_for_best_model": "exact_match", "eval_prompts": 4}
    spec_dict |= {"teacher": None, "alignment": None, "evaluation": None, "base_loss": {"name": "sft"}}
    spec_dict["student"]["tokenizer"] = str(tokenizer_folder)
    spec_dict["data"] |= {"validation": {"path": "validation.jsonl"}, "max_prompt_length": 100}
    spec_dict["training"] |= {**training, "generation": {}}
    reported = reported_data(prepare_run(bind(write_spec(spec_dict), discover())))
    assert (reported["validation answers"].used, reported["validation answers"].left_out) == (4, 3)
    assert reported["validation"].left_out == 3


def test_a_set_without_a_prompt_that_fits_is_a_fault(build, spec_dict):
    spec_dict["data"] = {**spec_dict["data"], "max_prompt_length": 10}
    with pytest.raises(InputError, match=r"every validation prompt is longer than 10 tokens \(6 rows\)"):
        build()


def test_measured_are_the_references_as_the_chat_template_writes_them(build):
    answer = "{% if m.role == 'assistant' %} .{{ eos_token }}{% else %} : {% endif %}"
    template = "{% for m in messages %}{{ m.content }}" + answer + "{% endfor %}"
    answers, _ = build(template)
    for references, prompt, measured in zip(answers.references, answers.prompt_ids, answers.measured, strict=True):
        assert measured.prompt == prompt
        written = answers.tokenizer(f"{references[0]} .", add_special_tokens=False)["input_ids"]
        assert measured.response == [*written, answers.tokenizer.eos_token_id]
