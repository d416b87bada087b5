"""Perplexity."""

from __future__ import annotations

import math

import pytest

from mta_framework import Generations, Likelihood, RunError
from mta_plugins.metrics.perplexity import Perplexity

METRIC = Perplexity(Perplexity.Params())


def generations(*likelihoods):
    return Generations(["x"] * len(likelihoods), [["y"]] * len(likelihoods), likelihoods=lambda: likelihoods)


def test_score_is_e_to_the_mean_surprise_weighted_by_tokens():
    score_set = METRIC.score(generations(Likelihood(6.0, 3), Likelihood(0.0, 2)))
    assert score_set.scores == pytest.approx((math.exp(2), 1.0))
    assert score_set.weights == (3.0, 2.0)


def test_the_weighted_geometric_mean_is_the_perplexity_of_all_tokens_together():
    assert (Perplexity.MEAN, Perplexity.HIGHER_IS_BETTER) == ("geometric", False)
    score_set = METRIC.score(generations(Likelihood(6.0, 3), Likelihood(1.0, 4), Likelihood(20.0, 5)))
    logs = sum(weight * math.log(score) for score, weight in zip(score_set.scores, score_set.weights, strict=True))
    assert math.exp(logs / sum(score_set.weights)) == pytest.approx(math.exp(27 / 12))


def test_a_model_that_has_gone_astray_gets_a_finite_score():
    (score,) = METRIC.score(generations(Likelihood(1e6, 2))).scores
    assert score == pytest.approx(math.exp(700))


def test_nan_is_not_hidden():
    (score,) = METRIC.score(generations(Likelihood(math.nan, 2))).scores
    assert math.isnan(score)


def test_responses_without_their_model_are_refused():
    with pytest.raises(RunError, match=r"perplexity: there are responses but no model"):
        METRIC.score(Generations(["x"], [["y"]]))
