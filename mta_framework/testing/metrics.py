"""What a metric promises."""

from __future__ import annotations

import math

from mta_framework.interfaces import Metric
from mta_framework.testing.plugin import PluginContract

_PREDICTIONS = ("", "a red bicycle", "日本語", "the lamp is broken")
_REFERENCES = (["x"], ["a red bicycle", "bike"], ["日本語"], ["his lamp was broken"])


class MetricContract(PluginContract):
    """Its ``plugin`` fixture returns a metric."""

    CONTRACT = Metric

    def test_every_prediction_gets_a_finite_number(self, plugin: Metric) -> None:
        scores = plugin.score(_PREDICTIONS, _REFERENCES).scores
        assert len(scores) == len(_PREDICTIONS)
        assert all(math.isfinite(score) for score in scores)

    def test_scores_come_in_the_order_of_the_predictions(self, plugin: Metric) -> None:
        scores = plugin.score(_PREDICTIONS, _REFERENCES).scores
        assert plugin.score(_PREDICTIONS[::-1], _REFERENCES[::-1]).scores == scores[::-1]

    def test_nothing_to_score_gives_no_scores(self, plugin: Metric) -> None:
        assert plugin.score([], []).scores == ()

    def test_a_perfect_prediction_scores_higher_than_a_wrong_one(self, plugin: Metric) -> None:
        right, wrong = plugin.score(["a red bicycle", "no"], [["a red bicycle"], ["a red bicycle"]]).scores
        assert right > wrong
