"""Evaluation: every model on every set with every seed, kept on disk and reused."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import json
import linecache
import math
import sys
from typing import ClassVar

import pytest

from mta_framework import Fault, InputError, Metric, RunError, ScoreSet
from mta_framework.data.tokens import PromptedResponse
from mta_framework.evaluation.evaluate import Candidate, EvaluationSet, evaluate_models
from mta_framework.evaluation.likelihood import likelihoods
from mta_framework.evaluation.predictions import Prediction, read_rows
from mta_framework.evaluation.report import ReportedMetric
from mta_framework.evaluation.response_journal import TextResponse
from mta_framework.generation.engine import Engine, SavedModel
from mta_framework.generation.generate import generate
from mta_framework.generation.sampling_settings import Generation, Sampling, prompt_seeds

ENDS = [40]
SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=6, batch_tokens=20)


class Tokens(Metric):
    """Counts the words of the prediction that stand in some reference."""

    NAME = "tokens"

    def score(self, answers):
        words = [{word for text in texts for word in text.split()} for texts in answers.references]
        pairs = zip(answers.predictions, words, strict=True)
        return ScoreSet(tuple(float(sum(word in known for word in text.split())) for text, known in pairs))


class Faulty(Tokens):
    """Scores NaN."""

    NAME = "faulty"

    def score(self, answers):
        return ScoreSet((float("nan"),) * len(answers.predictions))


REFERENCE_IDS = ((1, 2, 40), (3, 40), (6, 40))
"""The first references, each with the end token."""
MEASURED_IDS = ((9, 3, 4), (9, 5), (9, 6, 7, 8))
"""The prompts that training has before them."""


def entry(name="first", references=(("w1 w2",), ("w3", "w4 w5"), ("w6",))):
    questions = ("three four?", "five?", "six seven eight?")
    prompts, prompt_ids = ("w3 w4", "w5", "w6 w7 w8"), ((3, 4), (5,), (6, 7, 8))
    measured = [PromptedResponse(*map(list, pair)) for pair in zip(MEASURED_IDS, REFERENCE_IDS, strict=True)]
    return EvaluationSet(name, prompts, prompt_ids, references, measured, questions, cut=1)


class Loader:
    """Loads a model, and counts how often."""

    def __init__(self, model):
        self.model, self.calls = model, 0

    def __call__(self):
        self.calls += 1
        return self.model


def load_plugin(path):
    """What ``mta -p`` makes of a file in a new process."""
    linecache.clearcache()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    exec(compile(path.read_bytes(), path, "exec"), module.__dict__)  # never bytecode of the file as it was
    return module


@pytest.fixture
def loader(llama):
    return Loader(llama)


@pytest.fixture
def run(loader, tokenizer, tmp_path):
    """Evaluates in a temporary folder; every setting can be changed."""

    def evaluated(sets=None, fingerprint="a", metrics=(Tokens,), sampling=SAMPLING, seeds=(10, 20)):
        candidates = [Candidate("student", fingerprint, tokenizer, (40,), loader, sets or (entry(),))]
        return evaluate_models(candidates, [metric(metric.Params()) for metric in metrics], sampling, seeds, tmp_path)

    return evaluated


def test_results_are_those_of_generating_and_scoring_each_set_and_seed(run, llama, tokenizer):
    evaluation = run(sets=(entry(), entry("second")))
    assert [(row.model, row.set, row.seed, row.cut) for row in evaluation.results] == [
        ("student", name, seed, 1) for name in ("first", "second") for seed in (10, 20)
    ]
    (reported,) = evaluation.metrics
    assert reported == ReportedMetric("tokens", higher_is_better=True, mean="arithmetic", usage={})
    texts = [
        row.text for row in generate(llama, tokenizer, ENDS, entry().prompt_ids, SAMPLING, prompt_seeds(20, 3), None)
    ]
    result = evaluation.results[1]
    assert [row.prediction for row in result.predictions] == texts
    expected = [float(sum(word in {"w3", "w4", "w5"} for word in texts[1].split()))]
    assert [result.predictions[1].scores["tokens"]] == expected
    assert result.mean(reported) == sum(row.scores["tokens"] for row in result.predictions) / 3


def test_predictions_are_one_json_line_per_prompt(run, tmp_path):
    evaluation = run()
    lines = (tmp_path / "student" / "first-seed10.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["prompt"] for row in rows] == ["w3 w4", "w5", "w6 w7 w8"]
    assert [row["references"] for row in rows] == [["w1 w2"], ["w3", "w4 w5"], ["w6"]]
    assert [row["prediction"] for row in rows] == [row.prediction for row in evaluation.results[0].predictions]
    assert [row["question"] for row in rows] == ["three four?", "five?", "six seven eight?"]
    fields = {"prompt", "question", "prediction", "references", "finished", "tokens", "scores", "weights"}
    assert set(rows[0]) == fields
    assert read_rows(tmp_path / "student" / "first-seed10.jsonl") == list(evaluation.results[0].predictions)
    kept = ["first-seed10.jsonl", "first-seed10.jsonl.key", "first-seed20.jsonl", "first-seed20.jsonl.key"]
    assert sorted(path.name for path in (tmp_path / "student").iterdir()) == kept


def test_finished_predictions_are_reused_without_opening_the_model(run, loader):
    first = run()
    assert loader.calls == 1
    assert run() == first
    assert loader.calls == 1


def test_an_evaluation_that_was_cut_off_generates_only_what_is_missing(run, loader, tmp_path, monkeypatch):
    first = run()
    (tmp_path / "student" / "first-seed20.jsonl").unlink()
    seeds = []
    monkeypatch.setattr(
        "mta_framework.generation.transformers_engine.generate",
        lambda *arguments, **named: seeds.append(arguments[5]) or generate(*arguments, **named),
    )
    assert run() == first
    assert seeds == [prompt_seeds(20, 3)]


class Surprise(Metric):
    """Asks for likelihoods, and keeps all that it was told."""

    NAME = "surprise"
    MEAN = "geometric"
    HIGHER_IS_BETTER = False
    seen: ClassVar[list] = []

    def score(self, answers):
        rows = answers.likelihoods()
        self.seen.append((answers, rows))
        return ScoreSet(tuple(row.nats for row in rows), tuple(float(row.tokens) for row in rows))

    def usage(self):
        return {"requests": float(len(self.seen))}


def test_metrics_see_questions_and_likelihoods_which_are_measured_once(run, llama, tokenizer, tmp_path, monkeypatch):
    Surprise.seen.clear()
    measured = []

    def counting(*arguments):
        measured.append(arguments)
        return likelihoods(*arguments)

    monkeypatch.setattr("mta_framework.evaluation.evaluate.likelihoods", counting)
    run(metrics=(Tokens,))
    assert measured == []
    evaluation = run(metrics=(Surprise,))
    expected = likelihoods(llama, tokenizer, MEASURED_IDS, REFERENCE_IDS, 20)
    assert [rows for _, rows in Surprise.seen] == [tuple(expected)] * 2
    assert len(measured) == 1
    assert Surprise.seen[0][0].questions == ("three four?", "five?", "six seven eight?")
    assert evaluation.metrics[0].usage == {"requests": 2.0}
    row = evaluation.results[1].predictions[1]
    assert (row.scores, row.weights) == ({"surprise": expected[1].nats}, {"surprise": 2.0})
    nats = math.fsum(row.tokens * math.log(row.nats) for row in expected) / sum(row.tokens for row in expected)
    assert evaluation.results[0].mean(evaluation.metrics[0]) == pytest.approx(math.exp(nats))


def test_a_metric_that_asks_for_likelihoods_which_cannot_be_measured_ends_with_the_reason(run):
    reason = InputError(
        [Fault("evaluation.sets.first", "has references that training would refuse", "others", "Mend.")]
    )
    unmeasured = dataclasses.replace(entry(), measured=(), unmeasured=reason)
    assert len(run(metrics=(Tokens,), sets=(unmeasured,)).results) == 2
    with pytest.raises(InputError, match="has references that training would refuse"):
        run(metrics=(Surprise,), sets=(unmeasured,))


def test_scores_are_computed_anew_where_the_texts_of_likelihoods_change(run):
    Surprise.seen.clear()
    for measured in (entry().measured, entry().measured, [PromptedResponse([3, 4], [1, 40])] * 3):
        run(metrics=(Surprise,), sets=(dataclasses.replace(entry(), measured=measured),))
    assert len(Surprise.seen) == 4  # two seeds, twice


def test_batches_of_another_size_reuse_all(run, loader):
    first = run()
    assert run(sampling=dataclasses.replace(SAMPLING, batch_tokens=1000)) == first
    assert loader.calls == 1


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "b"},
        {"sampling": Sampling(0.5, 1.0, 6, 20)},
        {"sampling": Sampling(1.0, 1.0, 5, 20)},
        {"sets": (EvaluationSet("first", ("w3 w4",), ((3, 4),), (("w1",),), ([[3, 4], [1, 40]],), ("?",)),)},
    ],
    ids=["weights", "temperature", "length", "prompts"],
)
def test_predictions_of_another_model_or_other_settings_are_not_reused(run, loader, change):
    run()
    run(**change)
    assert loader.calls == 2


class Writer(Engine):
    """In the place of any engine: says that it was asked, and of what."""

    def __init__(self, name, models):
        self.name, self.models = name, models

    def _generate(self, by, prompt_ids, sampling, seeds, version, progress_label, done):
        generations = [Generation((1,), f"{self.name} {by} {seed}", True) for seed in seeds]
        for index, generation in enumerate(generations):
            done(index, generation)
        return generations


@pytest.mark.parametrize(("name", "loads"), [("transformers", 1), ("vllm", 0)])
def test_the_engine_writes_and_only_vllm_reads_a_stored_model_itself(
    loader, tokenizer, tmp_path, monkeypatch, name, loads
):
    made = []
    monkeypatch.setattr(
        "mta_framework.evaluation.evaluate.make_engine",
        lambda name, models, *_: made.append(models) or Writer(name, models),
    )
    stored = SavedModel(tmp_path / "weights", "float32")
    candidate = Candidate("student", "a", tokenizer, (40,), loader, (entry(),), stored)
    evaluation = evaluate_models([candidate], [Tokens(Tokens.Params())], SAMPLING, [10], tmp_path, engine=name)
    assert [row.prediction for row in evaluation.results[0].predictions] == [
        f"{name} student {seed}" for seed in prompt_seeds(10, 3)
    ]
    assert made == [{"student": loader.model if loads else stored}]
    assert loader.calls == loads


def test_responses_of_another_engine_are_not_reused(loader, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("mta_framework.evaluation.evaluate.make_engine", lambda name, models, *_: Writer(name, models))
    candidate = Candidate("student", "a", tokenizer, (40,), loader, (entry(),))
    first, other = (
        evaluate_models([candidate], [Tokens(Tokens.Params())], SAMPLING, [10], tmp_path, engine=name)
        for name in ("transformers", "vllm")
    )
    assert first.results[0].predictions[0].prediction.startswith("transformers")
    assert other.results[0].predictions[0].prediction.startswith("vllm")


def test_damaged_predictions_are_not_reused(run, loader, tmp_path):
    first = run()
    path = tmp_path / "student" / "first-seed10.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert run() == first
    assert loader.calls == 2


def test_other_references_are_scored_anew_without_generating(run, loader):
    run()
    references = (("w9",), ("w9",), ("w9 w10",))
    again = run(sets=(entry(references=references),))
    assert loader.calls == 1
    assert [row.references for row in again.results[0].predictions] == list(references)


def test_a_metric_whose_code_was_mended_scores_anew_without_generating(run, loader, tmp_path):
    code = """
from mta_framework import Metric, ScoreSet

class Constant(Metric):
    NAME = "constant"
    def score(self, answers):
        return ScoreSet((VALUE,) * len(answers.predictions))
"""
    scores = []
    for value in ("1.0", "2.0", "2.0"):
        (tmp_path / "constant.py").write_text(code.replace("VALUE", value))
        metric = load_plugin(tmp_path / "constant.py").Constant
        scores.append([row.scores["constant"] for row in run(metrics=(metric,)).results[0].predictions])
    assert scores == [[1.0] * 3, [2.0] * 3, [2.0] * 3]
    assert loader.calls == 1


def test_responses_survive_a_metric_that_fails(run, loader, tmp_path):
    with pytest.raises(RunError, match="metric faulty"):
        run(metrics=(Faulty,), seeds=(10,))
    assert len((tmp_path / "student" / "first-seed10.jsonl").read_text().splitlines()) == 3
    run(metrics=(Tokens,), seeds=(10,))
    assert loader.calls == 1


def test_line_separators_inside_a_response_do_not_break_the_file(tmp_path):
    from mta_framework.evaluation.predictions import Key, read_predictions, write_predictions

    rows = [
        Prediction("a\u2028b\nc", "q", "d\x85e\r\n", ("ü", "日本"), True, 4, {"m": 1.5}, {"m": 2.0}),
        Prediction("", "", "", ("",), False, 0),
    ]
    key = Key("responses", "scores")
    write_predictions(tmp_path / "set.v1-seed1.jsonl", rows, key)
    assert read_predictions(tmp_path / "set.v1-seed1.jsonl", key) == rows


class Seen(Metric):
    """Scores 1 where the prediction is the first reference, and keeps what it saw."""

    NAME = "seen"
    texts: ClassVar[list] = []

    def score(self, answers):
        type(self).texts += [(list(answers.predictions), [list(some) for some in answers.references])]
        pairs = zip(answers.predictions, answers.references, strict=True)
        return ScoreSet(tuple(float(text == some[0]) for text, some in pairs))


def test_metrics_see_answers_without_reasoning_and_files_keep_it(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr(Seen, "texts", [])
    reasoner = copy.deepcopy(tokenizer)
    reasoner.chat_template = "<think>"
    written = ["<think>w1</think> w2", "w3", "<think>w4"]
    responses = [TextResponse(text, text == "w3" or "</think>" in text, 3) for text in written]
    monkeypatch.setattr("mta_framework.evaluation.evaluate.respond", lambda *_: {10: responses})
    rows = entry(references=(("<think>w9</think>w2",), ("w3", "w4"), ("w6",)))

    def evaluated(strip):
        candidates = [Candidate("student", "a", reasoner, (40,), lambda: None, (rows,))]
        return evaluate_models(candidates, [Seen(Seen.Params())], SAMPLING, [10], tmp_path, strip_reasoning=strip)

    for strip in (None, True):
        (result,) = evaluated(strip).results
        assert [row.prediction for row in result.predictions] == written
        assert [row.scored_text for row in result.predictions] == ["w2", "w3", ""]
        assert [row.scores["seen"] for row in result.predictions] == [1.0, 1.0, 0.0]
    assert Seen.texts == [(["w2", "w3", ""], [["w2"], ["w3", "w4"], ["w6"]])]  # scored once
    path = tmp_path / "student" / "first-seed10.jsonl"
    assert [json.loads(line).get("answer") for line in path.read_text().splitlines()] == ["w2", None, ""]
    assert read_rows(path) == list(result.predictions)
    (raw,) = evaluated(False).results
    assert [row.scores["seen"] for row in raw.predictions] == [0.0, 1.0, 0.0]
    assert [row.scored_text for row in raw.predictions] == written


def test_a_reference_goes_on_in_the_reasoning_block_that_its_prompt_begins(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr(Seen, "texts", [])
    reasoner = copy.deepcopy(tokenizer)
    reasoner.chat_template = "<think>"
    responses = [TextResponse("w1</think> w2", True, 3)] * 3
    monkeypatch.setattr("mta_framework.evaluation.evaluate.respond", lambda *_: {10: responses})
    rows = entry(references=(("w9</think> w2",), ("<think>w9</think> w2",), ("w9</think> w2",)))
    rows = dataclasses.replace(rows, prompts=("w3<think>\n", "w5<think>\n", "w6"))
    candidates = [Candidate("student", "a", reasoner, (40,), lambda: None, (rows,))]
    evaluate_models(candidates, [Seen(Seen.Params())], SAMPLING, [10], tmp_path, strip_reasoning=None)
    assert Seen.texts == [(["w2", "w2", "w1</think> w2"], [["w2"], ["w2"], ["w9</think> w2"]])]
