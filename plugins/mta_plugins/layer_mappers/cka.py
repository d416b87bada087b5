"""Key layers chosen by measuring how alike the layers of both models are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from pydantic import Field, model_validator

from mta_framework import LayerPair, LayerSimilarity, MeasuringLayerMapper, ModelShape, PluginParams


class CKA(MeasuringLayerMapper):
    """Key layers at equal shares of the student's change; the teacher's, in the same order, that are most like them.

    Before the first step both models read some training texts, and all layers are compared by linear CKA of the
    directions of span vectors. Of K key layers the i-th lies where the student's states have gone through i/K of all
    the change that they undergo from its first layer to its last, change from layer to layer being 1 - CKA; so the
    last is the last. Each is compared to a layer of the teacher, all different and in ascending order, the last to the
    last, such that the sum of their CKA is the greatest. The lowest compare words, the others phrases.
    """

    NAME = "cka"

    class Params(PluginParams):
        """How many key layers of each kind, and how much is measured."""

        words: int = Field(1, ge=0, description="Key layers that compare words, the lowest ones.")
        phrases: int = Field(2, ge=0, description="Key layers that compare phrases, above those.")
        texts: int = Field(64, ge=1, le=4096, description="Training texts on which the layers are compared.")

        @model_validator(mode="after")
        def _something_to_choose(self) -> CKA.Params:
            if self.words + self.phrases < 2:
                raise ValueError("words and phrases are fewer than 2 together: only the last layers would be compared")
            return self

    params: Params

    @property
    def granularities(self) -> tuple[str, ...]:
        """Those that have a key layer."""
        return tuple(dict.fromkeys(self._names))

    @property
    def num_texts(self) -> int:
        """As the option."""
        return self.params.texts

    @property
    def _names(self) -> list[str]:
        """The granularity of each key layer."""
        return ["words"] * self.params.words + ["phrases"] * self.params.phrases

    def map(self, student: ModelShape, teacher: ModelShape) -> list[LayerPair]:
        """What would be chosen if layers changed evenly and were alike as they lie equally deep.

        Raises:
            ValueError: A model has fewer layers than there are key layers.
        """
        least = min(student.num_layers, teacher.num_layers)
        if len(self._names) > least:
            raise ValueError(
                f"{len(self._names)} key layers do not fit into models of {student.num_layers} and "
                f"{teacher.num_layers} layers; at most {least} do. Lower words or phrases."
            )
        own = [layer / student.num_layers for layer in range(1, student.num_layers + 1)]
        other = [layer / teacher.num_layers for layer in range(1, teacher.num_layers + 1)]
        return self.choose(LayerSimilarity(_nearness(own, other), _nearness(own, own)))

    def choose(self, similarity: LayerSimilarity) -> list[LayerPair]:
        """Choose key layers by what was measured; evenly where the student's states never change."""
        changes = [max(0.0, 1 - row[layer]) for layer, row in enumerate(similarity.within[:-1], start=1)]
        passed = list(accumulate(changes, initial=0.0))
        if passed[-1] == 0:
            passed = [float(layer) for layer in range(len(passed))]
        count = len(self._names)
        targets = [passed[-1] * number / count for number in range(1, count + 1)]
        own = _ascending([[-((place - target) ** 2) for place in passed] for target in targets])
        other = _ascending([similarity.across[layer] for layer in own])
        return [LayerPair(s + 1, t + 1, name) for s, t, name in zip(own, other, self._names, strict=True)]


def _nearness(own: Sequence[float], other: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(1 - abs(depth - place) for place in other) for depth in own)


_Way = tuple[float, tuple[int, ...]]
"""The sum of some columns' entries, and the columns."""


def _ascending(gain: Sequence[Sequence[float]]) -> tuple[int, ...]:
    """A column for each row, ascending to the last one in the last row, with the greatest sum of their entries."""
    ways: list[_Way] = [(value, (column,)) for column, value in enumerate(gain[0])]
    for row in gain[1:]:
        before = list(accumulate(ways, _better))[:-1]
        onward = zip(enumerate(row[1:], start=1), before, strict=True)
        ways = [(float("-inf"), ()), *((total + value, (*way, column)) for (column, value), (total, way) in onward)]
    return ways[-1][1]


def _better(one: _Way, other: _Way) -> _Way:
    return other if other[0] > one[0] else one
