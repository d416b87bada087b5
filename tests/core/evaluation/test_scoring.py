"""Scoring: labels, and metrics that must not be believed."""

from __future__ import annotations

import math
import re
from typing import Literal

import pytest

from mta_framework import Generations, InputError, Metric, PluginParams, RunError, ScoreSet
from mta_framework.evaluation.scoring import label_metrics, score


class Length(Metric):
    """Scores the number of characters."""

    NAME = "length"

    class Params(PluginParams):
        """Options."""

        unit: Literal["characters", "words"] = "characters"
        factor: float = 1.0

    def score(self, answers):
        return ScoreSet(tuple(float(len(text)) for text in answers.predictions))


class Returning(Metric):
    """Scores whatever it was told to."""

    NAME = "returning"

    def __init__(self, *scores):
        super().__init__(self.Params())
        self.scores = scores

    def score(self, answers):
        return ScoreSet(self.scores)


class Broken(Metric):
    """Fails."""

    NAME = "broken"

    def score(self, answers):
        raise KeyError("no such model")


def length(**options):
    return Length(Length.Params(**options))


def test_every_prediction_is_scored_by_every_metric():
    scores = score(Generations(["ab", ""], [["x"], ["y"]]), [("one", length()), ("two", Returning(3, -1))])
    assert scores == {"one": ScoreSet((2.0, 0.0)), "two": ScoreSet((3.0, -1.0))}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e308, -1.1e100])
def test_metric_that_returns_no_usable_number_is_named_with_the_prediction(bad):
    expected = rf"metric mine: must return finite scores up to 1e\+100 \(got {re.escape(str(bad))} for prediction 2\)"
    with pytest.raises(RunError, match=expected):
        score(Generations(["a", "b"], [["x"], ["y"]]), [("mine", Returning(1.0, bad))])


@pytest.mark.parametrize("scores", [(), (1.0,), (1.0, 2.0, 3.0)])
def test_metric_that_returns_a_wrong_number_of_scores_is_named(scores):
    with pytest.raises(RunError, match=rf"metric mine: .* one score per prediction, 2 \(got {len(scores)}\)"):
        score(Generations(["a", "b"], [["x"], ["y"]]), [("mine", Returning(*scores))])


def test_metric_that_fails_is_named_and_its_error_reported():
    with pytest.raises(RunError, match=r"metric broken: failed \(KeyError: 'no such model', in test_scoring.py:\d+\)"):
        score(Generations(["a"], [["x"]]), [("broken", Broken(Broken.Params()))])


def test_a_name_that_occurs_once_is_its_own_label():
    assert [label for label, _ in label_metrics([length(unit="words"), Returning()])] == ["length", "returning"]


def test_two_metrics_of_one_name_are_distinguished_by_their_options():
    metrics = [length(), length(unit="words"), length(unit="words", factor=2)]
    assert [label for label, _ in label_metrics(metrics)] == [
        "length",
        "length(unit=words)",
        "length(unit=words, factor=2.0)",
    ]


def test_the_same_metric_twice_is_refused():
    with pytest.raises(InputError, match=r"evaluation.metrics: repeats a metric \(got length twice\)"):
        label_metrics([length(), length(unit="characters")])


class Weighted(Metric):
    """Gives weights that it was told, for a geometric mean."""

    NAME = "weighted"
    MEAN = "geometric"

    def __init__(self, scores, weights):
        super().__init__(self.Params())
        self.score_set = ScoreSet(scores, weights)

    def score(self, answers):
        return self.score_set


def test_weights_are_kept():
    scores = score(Generations(["a", "b"], [["x"], ["y"]]), [("mine", Weighted((1, 2), (3, 0)))])
    assert scores == {"mine": ScoreSet((1.0, 2.0), (3.0, 0.0))}


@pytest.mark.parametrize(
    ("scores", "weights", "problem"),
    [
        ((1.0, 0.0), None, r"scores above 0 for a geometric mean \(got 0.0 for prediction 2\)"),
        ((1.0, 2.0), (1.0,), r"one weight per prediction, 2 \(got 1\)"),
        ((1.0, 2.0), (1.0, -1.0), r"finite weights from 0 on \(got -1.0 for prediction 2\)"),
        ((1.0, 2.0), (1e308, 1.0), r"finite weights from 0 on \(got 1e\+308 for prediction 1\)"),
        ((1.0, 2.0), (math.inf, 1.0), r"finite weights from 0 on \(got inf for prediction 1\)"),
    ],
)
def test_scores_and_weights_that_have_no_mean_are_refused(scores, weights, problem):
    with pytest.raises(RunError, match=rf"metric mine: must return {problem}"):
        score(Generations(["a", "b"], [["x"], ["y"]]), [("mine", Weighted(scores, weights))])


def test_each_metric_has_a_folder_of_its_own_that_is_called_as_it(tmp_path):
    class Keeping(Length):
        NAME = "keeping"

        def score(self, answers):
            folders.append(answers.cache_dir)
            return super().score(answers)

    folders = []
    metric = Keeping(Keeping.Params())
    score(Generations(["a"], [["x"]], cache_dir=tmp_path), [("keeping(unit=words)", metric)])
    score(Generations(["a"], [["x"]]), [("keeping", metric)])
    assert folders == [tmp_path / "keeping", None]


def test_what_a_metric_says_on_purpose_is_left_as_it_is():
    class Advising(Length):
        def score(self, answers):
            raise RunError("metric judge: no answer to prompt 3; raise max_requests")

    with pytest.raises(RunError, match=r"^metric judge: no answer to prompt 3; raise max_requests$"):
        score(Generations(["a"], [["x"]]), [("judge", Advising(Advising.Params()))])
