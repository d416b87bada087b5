"""What a metric promises."""

from __future__ import annotations

import math

from mta_framework.interfaces import Metric
from mta_framework.testing.plugin import PluginContract
from mta_framework.types import Answers

_PREDICTIONS = ("", "a red bicycle", "日本語", "the lamp is broken")
_REFERENCES = (["x"], ["a red bicycle", "bike"], ["日本語"], ["his lamp was broken"])
_QUESTIONS = ("Say x.", "What is it?", "Which language?", "What is wrong?")
_ANSWERS = Answers(_PREDICTIONS, _REFERENCES, _QUESTIONS)


class MetricContract(PluginContract):
    """Its ``plugin`` fixture returns a metric."""

    CONTRACT = Metric

    def test_every_prediction_gets_a_finite_number(self, plugin: Metric) -> None:
        scores = plugin.score(_ANSWERS).scores
        assert len(scores) == len(_PREDICTIONS)
        assert all(math.isfinite(score) for score in scores)

    def test_scores_come_in_the_order_of_the_predictions(self, plugin: Metric) -> None:
        scores = plugin.score(_ANSWERS).scores
        assert plugin.score(Answers(_PREDICTIONS[::-1], _REFERENCES[::-1], _QUESTIONS[::-1])).scores == scores[::-1]

    def test_nothing_to_score_gives_no_scores(self, plugin: Metric) -> None:
        assert plugin.score(Answers([], [])).scores == ()

    def test_a_perfect_prediction_scores_higher_than_a_wrong_one(self, plugin: Metric) -> None:
        right, wrong = plugin.score(Answers(["a red bicycle", "no"], [["a red bicycle"]] * 2, ["?"] * 2)).scores
        assert right > wrong if plugin.HIGHER_IS_BETTER else right < wrong
