"""Scoring: labels, and metrics that must not be believed."""

from __future__ import annotations

import math
import re
from typing import Literal

import pytest

from mta_framework import Generations, InputError, Metric, PluginParams, RunError, ScoreSet
from mta_framework.evaluation.scoring import checked_config, checked_usage, label_metrics, score


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
    got = rf"returned an unusable score \(got {re.escape(str(bad))} for prediction 2\)"
    expected = rf"^metric mine: {got}; expected finite scores up to 1e\+100\. Correct the metric, "
    with pytest.raises(RunError, match=expected):
        score(Generations(["a", "b"], [["x"], ["y"]]), [("mine", Returning(1.0, bad))])


@pytest.mark.parametrize("scores", [(), (1.0,), (1.0, 2.0, 3.0)])
def test_metric_that_returns_a_wrong_number_of_scores_is_named(scores):
    with pytest.raises(RunError, match=rf"scores \(got {len(scores)}\); expected one score per prediction, 2\."):
        score(Generations(["a", "b"], [["x"], ["y"]]), [("mine", Returning(*scores))])


def test_metric_that_fails_is_named_and_its_error_reported():
    with pytest.raises(
        RunError,
        match=r"^metric broken: score\(\) failed \(KeyError: 'no such model', in test_scoring.py:\d+\)\. Correct",
    ):
        score(Generations(["a"], [["x"]]), [("broken", Broken(Broken.Params()))])


@pytest.mark.parametrize("returned", [None, [1.0, 2.0], 3.0])
def test_a_metric_that_returns_no_score_set_is_named_with_what_it_returned(returned):
    class Careless(Length):
        def score(self, answers):
            return returned

    problem = rf"score\(\) returned something else \(got {type(returned).__name__}\)"
    with pytest.raises(
        RunError, match=rf"^metric mine: {problem}; expected a ScoreSet with one score per prediction, 2\."
    ):
        score(Generations(["a", "b"], [["x"], ["y"]]), [("mine", Careless(Careless.Params()))])


def test_weights_of_no_predictions_are_no_fault():
    assert score(Generations([], []), [("mine", Weighted((), ()))]) == {"mine": ScoreSet((), ())}


def test_no_metric_can_change_what_the_next_one_scores():
    class Changing(Length):
        def score(self, answers):
            for texts in (answers.predictions, answers.references, answers.references[0], answers.questions):
                with pytest.raises(TypeError):
                    texts[0] = "changed"
            return super().score(answers)

    class Seeing(Length):
        def score(self, answers):
            assert (answers.predictions, answers.references, answers.questions) == (("ab",), (("x", "y"),), ("q",))
            return super().score(answers)

    generations = Generations(["ab"], [["x", "y"]], ["q"])
    scores = score(generations, [("first", Changing(Changing.Params())), ("second", Seeing(Seeing.Params()))])
    assert scores == {"first": ScoreSet((2.0,)), "second": ScoreSet((2.0,))}


class Costly(Length):
    """Returns as usage and configuration what it is made with."""

    def __init__(self, returned):
        super().__init__(self.Params())
        self.returned = returned

    def usage(self):
        return self.returned()

    score_config = usage


@pytest.mark.parametrize("usage", [None, [1], {"tokens": "many"}, {"tokens": math.nan}, {3: 1.0}])
def test_usage_that_is_no_finite_number_by_name_is_refused_naming_the_metric(usage):
    with pytest.raises(RunError) as refusal:
        checked_usage("mine", Costly(lambda: usage))
    problem = f"metric mine: usage() returned something else (got {usage}); expected a finite number for each name. "
    assert str(refusal.value).startswith(problem)


def test_usage_is_passed_on_as_floats():
    assert checked_usage("mine", Costly(lambda: {"requests": 3, "cost": 0.5})) == {"requests": 3.0, "cost": 0.5}


@pytest.mark.parametrize("config", [None, [1], {"a": {1}}, {"a": math.nan}])
def test_a_configuration_that_json_cannot_express_is_refused_naming_the_metric(config):
    with pytest.raises(RunError) as refusal:
        checked_config("mine", Costly(lambda: config))
    assert str(refusal.value).startswith(
        f"metric mine: score_config() returned something else (got {config}); expected"
    )


@pytest.mark.parametrize(("check", "name"), [(checked_usage, "usage"), (checked_config, "score_config")])
def test_what_usage_and_configuration_raise_is_reported_with_the_metric(check, name):
    with pytest.raises(
        RunError, match=rf"^metric mine: {name}\(\) failed \(ZeroDivisionError: .*, in test_scoring.py:"
    ):
        check("mine", Costly(lambda: 1 / 0))


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
        ((1.0, 0.0), None, "unusable score (got 0.0 for prediction 2); expected scores above 0 for a geometric mean"),
        ((1.0, 2.0), (1.0,), "another number of weights (got 1); expected one weight per prediction, 2"),
        ((1.0, 2.0), (1.0, -1.0), "unusable weight (got -1.0 for prediction 2); expected finite weights from 0 on"),
        ((1.0, 2.0), (1e308, 1.0), "unusable weight (got 1e+308 for prediction 1); expected finite weights from 0 on"),
        ((1.0, 2.0), (math.inf, 1.0), "unusable weight (got inf for prediction 1); expected finite weights from 0 on"),
        (
            (1.0, 2.0),
            (0, 0.0),
            "leave the mean undefined (got 0 for all 2 predictions); expected a weight above 0 for at least one",
        ),
        ((1.0, 2.0), 7, "no sequence of weights (got int); expected one weight per prediction, 2"),
        ((1.0, 2.0), (1.0, None), "weight that is no number (got None for prediction 2)"),
        (None, None, "no sequence of scores (got NoneType); expected one score per prediction, 2"),
        ({1.0: "a", 2.0: "b"}, None, "no sequence of scores (got dict); expected one score per prediction, 2"),
        ("12", None, "no sequence of scores (got str); expected one score per prediction, 2"),
        ((1.0, "2"), None, "score that is no number (got '2' for prediction 2)"),
        ((None, 2.0), None, "score that is no number (got None for prediction 1)"),
        ((1.0, 1j), None, "score that is no number (got 1j for prediction 2)"),
    ],
)
def test_scores_and_weights_that_have_no_mean_are_refused(scores, weights, problem):
    with pytest.raises(RunError, match=f"^metric mine: returned .*{re.escape(problem)}"):
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
    assert folders[0].is_dir()


def test_a_cache_folder_that_cannot_be_made_is_said_with_a_remedy(tmp_path):
    (tmp_path / "length").write_text("a file in its way")
    with pytest.raises(RunError, match=r"^cannot write to .*length \(File exists\); "):
        score(Generations(["a"], [["x"]], cache_dir=tmp_path), [("length", length())])


def test_what_a_metric_says_on_purpose_is_left_as_it_is():
    class Advising(Length):
        def score(self, answers):
            raise RunError("metric judge: no answer to prompt 3; raise max_requests")

    with pytest.raises(RunError, match=r"^metric judge: no answer to prompt 3; raise max_requests$"):
        score(Generations(["a"], [["x"]]), [("judge", Advising(Advising.Params()))])
