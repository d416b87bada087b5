"""Summaries: means over prompts, then mean and deviation over seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mta_framework.evaluation.aggregation import Evaluation, SetResult, aggregate
from mta_framework.evaluation.predictions import Prediction
from mta_framework.evaluation.report import ReportedMetric
from mta_framework.evaluation.score_tables import score_table, scores_note
from mta_framework.evaluation.statistics import PromptScores, interval
from mta_framework.tables.table import TableCell


def result(model, name, seed, scores, cut=0, weights=None):
    rows = [
        Prediction(
            f"{name} prompt {row}",
            f"{name} question {row}",
            f"{model} {seed} {row}",
            ("right", "also right"),
            row == 0,
            3,
            {"m": value},
            {} if weights is None else {"m": weights[row]},
        )
        for row, value in enumerate(scores)
    ]
    return SetResult(model, name, seed, cut, tuple(rows))


def scores_of(evaluation, model):
    return {score.set: score for score in evaluation.scores if score.model == model}


TWO_SETS = Evaluation(
    (
        result("student", "one", 10, [10.0, 20.0], cut=1),
        result("student", "one", 20, [20.0, 30.0], cut=1),
        result("student", "two", 10, [1.0, 2.0, 3.0]),
        result("student", "two", 20, [2.0, 2.0, 8.0]),
    ),
    (ReportedMetric("m"),),
)


def test_means_over_prompts_come_before_mean_and_deviation_over_seeds():
    one = scores_of(aggregate(TWO_SETS), "student")["one"]
    assert one.per_seed == (15.0, 25.0)
    assert one.mean == 20.0
    assert one.deviation == pytest.approx(50**0.5)


def test_average_counts_every_set_alike_and_has_its_own_deviation():
    average = scores_of(aggregate(TWO_SETS), "student")[None]
    assert average.per_seed == (8.5, 14.5)
    assert average.mean == 11.5
    assert average.deviation == pytest.approx(18**0.5)


def test_single_seed_has_no_deviation_and_single_set_no_average():
    evaluation = aggregate(Evaluation((result("student", "one", 10, [10.0, 20.0]),), (ReportedMetric("m"),)))
    assert [(score.set, score.mean, score.deviation) for score in evaluation.scores] == [("one", 15.0, None)]
    low, high = evaluation.scores[0].interval
    assert 10.0 <= low < 15.0 < high <= 20.0
    assert score_table(evaluation, "m").rows == [["student", TableCell("15.00", below=f"[{low:.2f}, {high:.2f}]")]]
    assert "single sampling seed (10)" in scores_note(evaluation)


def test_prompts_without_weight_are_left_out_and_counted():
    rows = [result("student", "one", seed, [10.0, 0.0, 30.0], weights=[1.0, 0.0, 1.0]) for seed in (10, 20)]
    evaluation = aggregate(
        Evaluation(
            (*rows, result("student", "two", 10, [1.0]), result("student", "two", 20, [1.0])), (ReportedMetric("m"),)
        )
    )
    one = scores_of(evaluation, "student")["one"]
    assert (one.mean, one.unscored) == (20.0, 1)
    assert scores_of(evaluation, "student")["two"].unscored == 0
    assert scores_note(evaluation).endswith("m leaves 1 of 3 prompts of one out of the mean.")


def test_counts_of_prompts_cuts_and_finished_responses():
    one, two = aggregate(TWO_SETS).sets
    assert (one.set, one.prompts, one.cut, one.finished) == ("one", 2, 1, 0.5)
    assert (two.set, two.prompts, two.cut, two.finished) == ("two", 3, 0, pytest.approx(1 / 3))


def test_table_has_models_down_and_sets_across():
    teacher = (result("teacher", row.set, row.seed, [50.0] * len(row.predictions)) for row in TWO_SETS.results)
    results = (*TWO_SETS.results, *teacher)
    evaluation = aggregate(Evaluation(results, (ReportedMetric("m"),)))
    table = score_table(evaluation, "m")
    student, teacher = table.rows
    assert table.caption == "m"
    assert table.header == ["model", "one", "two", "average"]
    assert student[0] == "student"
    assert [cell.text for cell in student[1:]] == ["20.00 ± 7.07", "3.00 ± 1.41", "11.50 ± 4.24"]
    assert teacher == ["teacher", *[TableCell("50.00 ± 0.00", below="[50.00, 50.00]")] * 3]


def test_intervals_are_over_prompts_with_their_scores_averaged_over_seeds():
    by_set = scores_of(aggregate(TWO_SETS), "student")
    one, two = np.array([[10.0, 20.0], [20.0, 30.0]]), np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 8.0]])
    assert by_set["two"].interval == interval([PromptScores(two)])
    assert by_set[None].interval == interval([PromptScores(one), PromptScores(two)])


def test_one_prompt_has_no_interval():
    evaluation = aggregate(Evaluation((result("student", "one", 10, [10.0]),), (ReportedMetric("m"),)))
    assert evaluation.scores[0].interval is None
    assert score_table(evaluation, "m").rows == [["student", TableCell("10.00")]]


def test_perplexity_over_a_set_is_that_of_all_its_tokens_together():
    nats, tokens = [12.0, 3.0, 40.5], [6.0, 4.0, 9.0]
    scores = [math.exp(total / count) for total, count in zip(nats, tokens, strict=True)]
    metric = ReportedMetric("m", higher_is_better=False, mean="geometric")
    evaluation = aggregate(Evaluation((result("student", "one", 10, scores, weights=tokens),), (metric,)))
    assert evaluation.scores[0].mean == pytest.approx(math.exp(55.5 / 19))
    assert evaluation.metrics == (metric,)
    assert score_table(evaluation, "m").caption == "m (lower is better)"


def test_scores_without_any_weight_count_alike():
    row = result("student", "one", 10, [1.0, 3.0], weights=[0.0, 0.0])
    assert row.mean(ReportedMetric("m")) == 2.0
    evaluation = aggregate(Evaluation((row,), (ReportedMetric("m"),)))
    assert evaluation.scores[0].mean == 2.0


def test_the_same_rows_have_the_same_digest_whatever_the_model_made_of_them():
    def digest(entry, rows, name="student"):
        (reported,) = aggregate(Evaluation((result(name, entry, 10, rows),), (ReportedMetric("m"),))).sets
        return reported.digest

    assert digest("one", [1.0, 2.0]) == digest("one", [3.0, 4.0], "teacher")
    assert len({digest("one", [1.0, 2.0]), digest("two", [1.0, 2.0]), digest("one", [1.0])}) == 3


def test_samples_are_the_first_rows_of_the_sets_in_turn_with_every_model():
    results = (*TWO_SETS.results, result("teacher", "one", 10, [5.0, 5.0]), result("teacher", "one", 20, [5.0, 5.0]))
    results += (result("teacher", "two", 10, [5.0] * 3), result("teacher", "two", 20, [5.0] * 3))
    samples = aggregate(Evaluation(results, (ReportedMetric("m"),))).samples
    assert [sample.prompt for sample in samples] == ["one prompt 0", "two prompt 0", "one prompt 1"]
    assert samples[2].responses == {"student": "student 10 1", "teacher": "teacher 10 1"}
    assert samples[2].reference == "right"
