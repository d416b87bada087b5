"""The contract of layer mappers."""

from __future__ import annotations

from abc import abstractmethod

from mta_framework.interfaces.plugin import Plugin
from mta_framework.types import (
    LayerPair,
    LayerSimilarity,
    ModelShape,
)


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


class MeasuringLayerMapper(LayerMapper):
    """Chooses the key layers by what the models make of the training texts, before the first step.

    ``map`` is asked as well, before any weights are loaded: it refuses models that are too small, and tells plans what
    to expect: as many pairs, of the same granularities.
    """

    @property
    @abstractmethod
    def texts(self) -> int:
        """On how many texts of the training set the layers are compared."""

    @abstractmethod
    def choose(self, similarity: LayerSimilarity) -> list[LayerPair]:
        """Choose key layers; asked once per run.

        Args:
            similarity: Of the student as it starts and the teacher, by the directions of the vectors of spans of
                ``granularities``.

        Returns:
            As ``map``.

        Raises:
            ValueError: As ``map``.
        """
