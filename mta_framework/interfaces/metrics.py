"""The contract of metrics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from pydantic import JsonValue

from mta_framework.interfaces.plugin import Plugin
from mta_framework.types import Generations, MeanKind, ScoreSet


class Metric(Plugin):
    """Scores generated texts against references.

    Attributes:
        HIGHER_IS_BETTER: Whether a higher score is better.
        MEAN: How scores are averaged over prompts; a geometric mean needs scores above 0.
        NEEDS_LIKELIHOODS: Whether ``score`` asks for the likelihoods of references. References that training would
            refuse have none, and are then a fault before anything starts.
        HUB_NAME: Id of the metric on the Hugging Face hub, for the model card; empty: the same as ``NAME``.
    """

    HIGHER_IS_BETTER: ClassVar[bool] = True
    MEAN: ClassVar[MeanKind] = "arithmetic"
    NEEDS_LIKELIHOODS: ClassVar[bool] = False
    HUB_NAME: ClassVar[str] = ""

    @abstractmethod
    def score(self, generations: Generations) -> ScoreSet:
        """Score each prediction by itself.

        Args:
            generations: Predictions with references, questions, likelihoods and a cache directory; there may be no
                predictions.

        Returns:
            One finite score per prediction, in their order; none for no predictions.
        """

    def usage(self) -> Mapping[str, float]:
        """Return the cost of scoring since the metric was created, by name (e.g. requests, tokens), for the report."""
        return {}

    def score_config(self) -> Mapping[str, JsonValue]:
        """Return the options that scores depend on: ``mta compare`` compares scores only where these are equal.

        By default these are all options. Override it to leave out options that only affect how scoring is done, e.g.
        its parallelism.
        """
        return self.params.model_dump(mode="json")


class PairwiseMetric(Metric):
    """A metric that can also say which of two responses to a prompt is better."""

    @abstractmethod
    def prefer(self, first: Generations, second: Generations) -> ScoreSet:
        """Compare two models' responses to the same prompts.

        Args:
            first: Responses of one model.
            second: Responses of the other model, with the same questions and references in the same order.

        Returns:
            One score per prompt: 1 where the second response is better, 0 where the first is, 0.5 where neither is.
        """
