"""Key layers chosen by the measured similarity of the layers of both models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from pydantic import Field, model_validator

from mta_framework import LayerPair, LayerSimilarity, MeasuringLayerMapper, ModelShape, PluginParams


class CKA(MeasuringLayerMapper):
    """Key layers at equal shares of the student's change, each paired with the most similar layer of the teacher.

    Before the first step both models read some training texts, and all layers are compared by linear CKA of the
    directions of span vectors. The change from one layer of the student to the next is 1 - CKA. Of K key layers, the
    i-th is the layer up to which about i/K of the total change has happened: distinct layers in ascending order with
    the least squared differences, the last one the last layer. They are paired with different layers of the teacher in
    ascending order, the last with the last, so that the sum of their CKA is the greatest. The lowest key layers compare
    words, the others phrases.
    """

    NAME = "cka"

    class Params(PluginParams):
        """Options."""

        words: int = Field(
            1, ge=0, le=1000, description="Number of key layers that compare words; they are the lowest ones."
        )
        phrases: int = Field(
            2, ge=0, le=1000, description="Number of key layers that compare phrases, above those of words."
        )
        texts: int = Field(64, ge=1, le=4096, description="Number of training texts on which the layers are compared.")

        @model_validator(mode="after")
        def _something_to_choose(self) -> CKA.Params:
            if self.words + self.phrases < 2:
                raise ValueError("words and phrases are fewer than 2 together: only the last layers would be compared")
            return self

    params: Params

    @property
    def granularities(self) -> tuple[str, ...]:
        """Granularities with at least one key layer."""
        return tuple(dict.fromkeys(self._names))

    @property
    def num_texts(self) -> int:
        """The option ``texts``."""
        return self.params.texts

    @property
    def _names(self) -> list[str]:
        """The granularity of each key layer."""
        return ["words"] * self.params.words + ["phrases"] * self.params.phrases

    def map(self, student: ModelShape, teacher: ModelShape) -> list[LayerPair]:
        """Choose key layers as if layers changed evenly and were similar at equal relative depth.

        Raises:
            ValueError: A model has fewer layers than there are key layers.
        """
        least = min(student.num_layers, teacher.num_layers)
        if len(self._names) > least:
            raise ValueError(
                f"{len(self._names)} key layers do not fit into models of {student.num_layers} and "
                f"{teacher.num_layers} layers; expected at most {least} key layers. Lower words or phrases."
            )
        depths = [layer / student.num_layers for layer in range(1, student.num_layers + 1)]
        teacher_depths = [layer / teacher.num_layers for layer in range(1, teacher.num_layers + 1)]
        return self.choose(LayerSimilarity(_nearness(depths, teacher_depths), _nearness(depths, depths)))

    def choose(self, similarity: LayerSimilarity) -> list[LayerPair]:
        """Choose key layers by similarity; evenly spread ones where the student's states never change."""
        changes = [max(0.0, 1 - row[layer]) for layer, row in enumerate(similarity.within[:-1], start=1)]
        passed = list(accumulate(changes, initial=0.0))
        if passed[-1] == 0:
            passed = [float(layer) for layer in range(len(passed))]
        count = len(self._names)
        targets = [passed[-1] * index / count for index in range(1, count + 1)]
        layers = _ascending([[-((change - target) ** 2) for change in passed] for target in targets])
        teacher_layers = _ascending([similarity.across[layer] for layer in layers])
        return [LayerPair(s + 1, t + 1, name) for s, t, name in zip(layers, teacher_layers, self._names, strict=True)]


def _nearness(rows: Sequence[float], columns: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(1 - abs(row - column) for column in columns) for row in rows)


_Path = tuple[float, tuple[int, ...]]
"""A column for each row so far, and the sum of their entries, which comes first."""


def _ascending(gain: Sequence[Sequence[float]]) -> tuple[int, ...]:
    """Choose a column for each row, in ascending order, the last for the last, with the greatest sum of entries."""
    paths: list[_Path] = [(value, (column,)) for column, value in enumerate(gain[0])]
    for row in gain[1:]:
        best = list(accumulate(paths, _better))[:-1]
        steps = zip(enumerate(row[1:], start=1), best, strict=True)
        paths = [(float("-inf"), ()), *((total + value, (*path, column)) for (column, value), (total, path) in steps)]
    return paths[-1][1]


def _better(first: _Path, second: _Path) -> _Path:
    return second if second[0] > first[0] else first
