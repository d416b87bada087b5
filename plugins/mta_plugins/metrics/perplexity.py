"""Perplexity of the references under a model."""

from __future__ import annotations

import math

from mta_framework import Generations, Metric, RunError, ScoreSet

# e^700 is near the largest float64, so that a diverged model still gets a finite score.
_MAX_EXPONENT = 700.0


class Perplexity(Metric):
    """Perplexity of the first reference under the model: e to the mean of -log p over its tokens; lower is better.

    The mean over prompts is geometric and weighted by tokens, so it equals the perplexity of all references together.
    """

    NAME = "perplexity"
    HIGHER_IS_BETTER = False
    MEAN = "geometric"
    NEEDS_LIKELIHOODS = True

    def score(self, generations: Generations) -> ScoreSet:
        """Score the references; the predictions have no effect on the score.

        Raises:
            RunError: There is no model, only its responses.
        """
        if not generations.predictions:
            return ScoreSet((), ())
        if generations.likelihoods is None:
            raise RunError(
                "perplexity: there are responses but no model; the model that wrote them is needed. "
                "Evaluate the model itself, or leave this metric out."
            )
        likelihoods = generations.likelihoods()
        scores = tuple(math.exp(min(text.nats / text.tokens, _MAX_EXPONENT)) for text in likelihoods)
        return ScoreSet(scores, tuple(float(text.tokens) for text in likelihoods))
