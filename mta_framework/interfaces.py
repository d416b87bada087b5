"""The contracts that plugins fulfil. No torch at run time, so that plugins can be listed at once.

A plugin class has a ``NAME`` (what a spec calls it), a nested ``Params`` (its options; frozen, unknown ones forbidden)
and one contract method. It is created once per run, when the spec is bound.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict

from mta_framework.types import Batch, LayerPair, LossTerms, ModelShape, Progress, ScoreSet, SpanSet, States

if TYPE_CHECKING:
    from torch import Tensor


class PluginParams(BaseModel):
    """Base of every plugin's options: immutable, and an unknown option is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)


class Plugin(ABC):
    """What all families share."""

    NAME: ClassVar[str]

    class Params(PluginParams):
        """No options."""

    def __init__(self, params: PluginParams):
        self.params = params


class SpanExtractor(Plugin):
    """Finds the spans of a text.

    Attributes:
        VERSION: Part of the cache key: raise it whenever the same text and options give other spans.
    """

    VERSION: ClassVar[str]

    @property
    @abstractmethod
    def granularities(self) -> tuple[str, ...]:
        """The granularities of every span set that ``extract`` returns, e.g. ``("words", "phrases")``."""

    @abstractmethod
    def extract(self, texts: Sequence[str]) -> list[SpanSet]:
        """Find spans.

        Pure: the same text gives the same spans, alone or among others. Called in worker processes, so load parsers
        lazily; batching and processes are the core's business.

        Args:
            texts: Any strings; empty ones, emoji and any script included.

        Returns:
            One span set per text, with every granularity of ``granularities``; half-open ``[start, end)`` character
            offsets, ``0 <= start < end <= len(text)``, sorted, without repetition. A text without spans has empty
            lists.
        """

    def fingerprint(self) -> str:
        """What the spans depend on besides the text, as JSON: cached spans are used again only where it is the same.

        Override it to add the versions of a parser and its model, reading them without loading either.
        """
        options = self.params.model_dump(mode="json")
        return json.dumps({"name": self.NAME, "version": self.VERSION, "params": options}, sort_keys=True)

    def require(self) -> str | None:
        """What is missing on this machine to run, as a sentence that says how to get it; None if nothing is."""
        return None


class ImportanceEstimator(Plugin):
    """Weighs the tokens of a text."""

    @abstractmethod
    def weigh(self, states: States, layer: int, mask_BT: Tensor) -> Tensor:
        """Importance of every token.

        Args:
            states: Of the model whose tokens are weighed, student or teacher.
            layer: The 1-based key layer at hand.
            mask_BT: 1 on tokens, 0 on padding.

        Returns:
            weight_BT, float32, non-negative, 0 on padding, without gradient. Its scale per text is free: pooling
            normalises.
        """


class LayerMapper(Plugin):
    """Chooses the key layers."""

    @property
    @abstractmethod
    def granularities(self) -> tuple[str, ...]:
        """The granularities that the returned pairs use; binding refuses extractors that lack one."""

    @abstractmethod
    def map(self, student: ModelShape, teacher: ModelShape) -> list[LayerPair]:
        """Choose key layers.

        Returns:
            Pairs, sorted by student layer; layers are 1-based and within the depth of their model.

        Raises:
            ValueError: No such choice exists for these two models; its message reads ``what is wrong; what is
                allowed. What to do.``
        """


class BaseLoss(Plugin):
    """The loss that spans are added to.

    Attributes:
        NEEDS_TEACHER: Whether ``compute`` uses the teacher.
    """

    NEEDS_TEACHER: ClassVar[bool] = True

    @abstractmethod
    def compute(self, student: States, teacher: States | None, batch: Batch, progress: Progress) -> LossTerms:
        """The loss on one micro-batch, as sums (``mta_framework.vocabulary`` does it without whole logits).

        Args:
            student: With gradient.
            teacher: Without gradient; None where ``NEEDS_TEACHER`` is false.
            batch: What is supervised, and the counts that the sums are divided by.
            progress: For schedules.

        Returns:
            Terms whose units are keys of ``batch.counts``. A micro-batch in which nothing is supervised gives zeros
            that still hang on the student's graph.
        """


class Metric(Plugin):
    """Scores generated text against references."""

    @abstractmethod
    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> ScoreSet:
        """Score predictions.

        Args:
            predictions: Generated texts; may be empty strings.
            references: For each prediction, at least one reference.

        Returns:
            One score per prediction, in their order.
        """
