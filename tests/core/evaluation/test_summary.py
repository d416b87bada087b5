"""Summaries: means over prompts, then mean and deviation over seeds."""

from __future__ import annotations

import pytest

from mta_framework.evaluation.results import Evaluation, Prediction, SetResult
from mta_framework.evaluation.summary import summarise
from mta_framework.evaluation.tables import score_rows, seeds_note


def result(model, name, seed, scores, cut=0):
    rows = [
        Prediction(f"{name} prompt {row}", f"{model} {seed} {row}", ("right", "also right"), row == 0, {"m": value})
        for row, value in enumerate(scores)
    ]
    return SetResult(model, name, seed, cut, tuple(rows))


def scores_of(facts, model):
    return {score.set: score for score in facts.scores if score.model == model}


TWO_SETS = Evaluation(
    (
        result("student", "one", 10, [10.0, 20.0], cut=1),
        result("student", "one", 20, [20.0, 30.0], cut=1),
        result("student", "two", 10, [1.0, 2.0, 3.0]),
        result("student", "two", 20, [2.0, 2.0, 8.0]),
    ),
    ("m",),
)


def test_means_over_prompts_come_before_mean_and_deviation_over_seeds():
    one = scores_of(summarise(TWO_SETS), "student")["one"]
    assert one.per_seed == (15.0, 25.0)
    assert one.mean == 20.0
    assert one.deviation == pytest.approx(50**0.5)


def test_average_counts_every_set_alike_and_has_its_own_deviation():
    average = scores_of(summarise(TWO_SETS), "student")[None]
    assert average.per_seed == (8.5, 14.5)
    assert average.mean == 11.5
    assert average.deviation == pytest.approx(18**0.5)


def test_single_seed_has_no_deviation_and_single_set_no_average():
    facts = summarise(Evaluation((result("student", "one", 10, [10.0, 20.0]),), ("m",)))
    assert [(score.set, score.mean, score.deviation) for score in facts.scores] == [("one", 15.0, None)]
    assert score_rows(facts, "m") == [["model", "one"], ["student", "15.00"]]
    assert "single sampling seed (10)" in seeds_note(facts.seeds)


def test_counts_of_prompts_cuts_and_finished_responses():
    one, two = summarise(TWO_SETS).sets
    assert (one.set, one.prompts, one.cut, one.finished) == ("one", 2, 1, 0.5)
    assert (two.set, two.prompts, two.cut, two.finished) == ("two", 3, 0, pytest.approx(1 / 3))


def test_table_has_models_down_and_sets_across():
    teacher = (result("teacher", row.set, row.seed, [50.0] * len(row.predictions)) for row in TWO_SETS.results)
    results = (*TWO_SETS.results, *teacher)
    assert score_rows(summarise(Evaluation(results, ("m",))), "m") == [
        ["model", "one", "two", "average"],
        ["student", "20.00 ± 7.07", "3.00 ± 1.41", "11.50 ± 4.24"],
        ["teacher", "50.00 ± 0.00", "50.00 ± 0.00", "50.00 ± 0.00"],
    ]


def test_samples_are_the_first_rows_of_the_sets_in_turn_with_every_model():
    results = (*TWO_SETS.results, result("teacher", "one", 10, [5.0, 5.0]), result("teacher", "one", 20, [5.0, 5.0]))
    results += (result("teacher", "two", 10, [5.0] * 3), result("teacher", "two", 20, [5.0] * 3))
    samples = summarise(Evaluation(results, ("m",))).samples
    assert [sample.prompt for sample in samples] == ["one prompt 0", "two prompt 0", "one prompt 1"]
    assert samples[2].responses == {"student": "student 10 1", "teacher": "teacher 10 1"}
    assert samples[2].reference == "right"
