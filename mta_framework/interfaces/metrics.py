"""The contract of metrics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from pydantic import JsonValue

from mta_framework.interfaces.plugin import Plugin
from mta_framework.types import (
    Generations,
    MeanKind,
    ScoreSet,
)


class Metric(Plugin):
    """Scores generated text against references.

    Attributes:
        HIGHER_IS_BETTER: Whether a higher score is the better one.
        MEAN: How scores are averaged over prompts; a geometric mean needs scores above 0.
        HUB_NAME: Id of the metric on the Hugging Face hub, for the model card; empty: the same as ``NAME``.
    """

    HIGHER_IS_BETTER: ClassVar[bool] = True
    MEAN: ClassVar[MeanKind] = "arithmetic"
    HUB_NAME: ClassVar[str] = ""

    @abstractmethod
    def score(self, generations: Generations) -> ScoreSet:
        """Score predictions, each for itself.

        Args:
            generations: Predictions, references and what else there is to go by; there may be none at all.

        Returns:
            One finite score per prediction, in their order.
        """

    def usage(self) -> Mapping[str, float]:
        """What scoring has cost since the metric was created, by name, e.g. requests and tokens; for the report."""
        return {}

    def score_config(self) -> Mapping[str, JsonValue]:
        """The options that scores depend on: only scores of the same name and definition are compared.

        Override it where some options tell merely how the work is done.
        """
        return self.params.model_dump(mode="json")


class PairwiseMetric(Metric):
    """A metric that can also say which of two responses to a prompt is the better one."""

    @abstractmethod
    def prefer(self, first: Generations, second: Generations) -> ScoreSet:
        """Compare two models' responses to the same prompts.

        Args:
            first: Of one model.
            second: Of the other: the same questions and references, in the same order.

        Returns:
            For each prompt 1 where the second response is better, 0 where the first is, 0.5 where neither is.
        """
