"""The contract of layer mappers."""

from __future__ import annotations

from abc import abstractmethod

from mta_framework.interfaces.plugin import Plugin
from mta_framework.types import LayerPair, LayerSimilarity, ModelShape


class LayerMapper(Plugin):
    """Chooses the key layers: pairs of layers whose spans are compared."""

    @property
    @abstractmethod
    def granularities(self) -> tuple[str, ...]:
        """The granularities of the pairs; binding refuses span extractors that lack one of them."""

    @abstractmethod
    def map(self, student: ModelShape, teacher: ModelShape) -> list[LayerPair]:
        """Choose key layers by the depth of both models.

        Args:
            student: Shape of the student.
            teacher: Shape of the teacher.

        Returns:
            At least one ``LayerPair(student, teacher, granularity)``, each once, sorted by student layer. Layers are
            1-based and within the depth of their model.

        Raises:
            ValueError: The options do not fit these models. Its message reads ``problem; expected NOUN PHRASE.
                What to do.``
        """


class MeasuringLayerMapper(LayerMapper):
    """Chooses the key layers by how similar the layers of both models are on training texts.

    ``map`` is called as well, before any weights are loaded: it refuses models that are too small, and its pairs tell
    ``mta run --dry-run`` how many pairs of which granularities to expect.
    """

    @property
    @abstractmethod
    def num_texts(self) -> int:
        """Number of texts of the training set on which the layers are compared."""

    @abstractmethod
    def choose(self, similarity: LayerSimilarity) -> list[LayerPair]:
        """Choose key layers by measured similarity; called once per run, before the first step.

        Args:
            similarity: Similarity of the layers of the untrained student and the teacher, by the directions of span
                vectors of ``granularities``.

        Returns:
            Pairs as from ``map``: as many, of the same granularities.

        Raises:
            ValueError: As for ``map``.
        """
