"""Contract tests of metrics."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import TypeVar

from mta_framework.interfaces import Metric, PairwiseMetric
from mta_framework.testing.plugin import PluginContract
from mta_framework.types import Generations, Likelihood

Item = TypeVar("Item")

_PREDICTIONS = ("", "a red bicycle", "日本語", "the lamp is broken", "{} [[7]] 5.")
_REFERENCES = (("x",), ("a red bicycle", "bike"), ("日本語",), ("his lamp was broken",), ("", "-5"))
_QUESTIONS = ("Say x.", "What is it?", "Which language?", "What is wrong?", "")
_LIKELIHOODS = (Likelihood(2.0, 1), Likelihood(0.0, 3), Likelihood(5.0, 2), Likelihood(11.5, 5), Likelihood(0.25, 1))
_EMPTY = Generations((), (), likelihoods=lambda: ())


def _generations(rows: Sequence[int], predictions: Sequence[str] = _PREDICTIONS) -> Generations:
    """Generations of these rows, with everything that a metric can use."""

    def likelihoods() -> tuple[Likelihood, ...]:
        return _chosen(_LIKELIHOODS, rows)

    texts = _chosen(predictions, rows), _chosen(_REFERENCES, rows), _chosen(_QUESTIONS, rows)
    return Generations(*texts, likelihoods)


def _chosen(values: Sequence[Item], rows: Sequence[int]) -> tuple[Item, ...]:
    return tuple(values[row] for row in rows)


_ALL = range(len(_PREDICTIONS))


class MetricContract(PluginContract):
    """Tests of a metric, which the fixture ``plugin`` returns."""

    CONTRACT = Metric

    def test_every_prediction_gets_a_finite_number(self, plugin: Metric) -> None:
        scores = plugin.score(_generations(_ALL)).scores
        assert len(scores) == len(_PREDICTIONS)
        assert all(math.isfinite(score) for score in scores)

    def test_weights_are_not_negative_and_geometric_scores_positive(self, plugin: Metric) -> None:
        scored = plugin.score(_generations(_ALL))
        assert scored.weights is None or len(scored.weights) == len(_PREDICTIONS)
        assert all(math.isfinite(weight) and weight >= 0 for weight in scored.weights or ())
        assert plugin.MEAN in ("arithmetic", "geometric")
        assert plugin.MEAN == "arithmetic" or min(scored.scores) > 0

    def test_scores_come_in_the_order_of_the_predictions(self, plugin: Metric) -> None:
        scored, reversed_ = plugin.score(_generations(_ALL)), plugin.score(_generations(_ALL[::-1]))
        assert reversed_.scores == scored.scores[::-1]
        assert (reversed_.weights or ())[::-1] == (scored.weights or ())

    def test_it_says_whether_it_asks_for_likelihoods(self, plugin: Metric) -> None:
        asked = []

        def likelihoods() -> Sequence[Likelihood]:
            asked.append(True)
            return _LIKELIHOODS

        plugin.score(dataclasses.replace(_generations(_ALL), likelihoods=likelihoods))
        assert bool(asked) == plugin.NEEDS_LIKELIHOODS

    def test_nothing_to_score_gives_no_scores(self, plugin: Metric) -> None:
        assert plugin.score(_EMPTY).scores == ()

    def test_a_perfect_prediction_scores_better_than_a_wrong_one_that_stammers(self, plugin: Metric) -> None:
        surprises = (Likelihood(0.5, 3), Likelihood(9.0, 3))
        generations = Generations(
            ("a red bicycle", "no no no"), (("a red bicycle",),) * 2, ("What is it?",) * 2, lambda: surprises
        )
        right, mistaken = plugin.score(generations).scores
        assert right > mistaken if plugin.HIGHER_IS_BETTER else right < mistaken

    def test_what_its_scores_depend_on_is_json(self, plugin: Metric) -> None:
        assert json.loads(json.dumps(plugin.score_config())) == plugin.score_config()

    def test_its_usage_is_finite_and_does_not_shrink(self, plugin: Metric) -> None:
        before = plugin.usage()
        plugin.score(_generations(_ALL))
        after = plugin.usage()
        assert all(math.isfinite(amount) and amount >= before.get(name, 0) >= 0 for name, amount in after.items())


class PairwiseMetricContract(MetricContract):
    """Tests of a pairwise metric, which the fixture ``plugin`` returns."""

    CONTRACT = PairwiseMetric

    def test_equal_responses_are_equally_good(self, plugin: PairwiseMetric) -> None:
        assert plugin.prefer(_generations(_ALL), _generations(_ALL)).scores == (0.5,) * len(_PREDICTIONS)

    def test_a_perfect_response_is_preferred_wherever_it_stands(self, plugin: PairwiseMetric) -> None:
        perfect, poor = (
            _generations([1, 3], ("", "a red bicycle", "", "his lamp was broken")),
            _generations([1, 3], ("no",) * 4),
        )
        assert plugin.prefer(perfect, poor).scores == (0.0, 0.0)
        assert plugin.prefer(poor, perfect).scores == (1.0, 1.0)

    def test_no_pairs_have_no_preferences(self, plugin: PairwiseMetric) -> None:
        assert plugin.prefer(_EMPTY, _EMPTY).scores == ()
