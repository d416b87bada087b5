"""Perplexity: how little a model expects the references."""

from __future__ import annotations

import math

from mta_framework import Generations, Metric, RunError, ScoreSet

# e^700 is about the largest number that there is: a model that has gone astray still gets a score.
_LARGEST = 700.0


class Perplexity(Metric):
    """Perplexity of the first reference under the model: e to the mean of -log p over its tokens; lower is better.

    The mean over prompts is geometric and weighted by tokens, so it is the perplexity of all references together.
    """

    NAME = "perplexity"
    HIGHER_IS_BETTER = False
    MEAN = "geometric"

    def score(self, generations: Generations) -> ScoreSet:
        """Score references; what the model has written plays no part."""
        if not generations.predictions:
            return ScoreSet((), ())
        if generations.likelihoods is None:
            raise RunError(
                "perplexity: there is no model to ask (got responses alone); the model that wrote them is needed. "
                "Evaluate the model itself, or leave this metric out."
            )
        found = generations.likelihoods()
        scores = tuple(math.exp(min(one.nats / one.tokens, _LARGEST)) for one in found)
        return ScoreSet(scores, tuple(float(one.tokens) for one in found))
