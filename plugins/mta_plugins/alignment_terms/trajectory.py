"""Trajectory alignment: the relative geometry of how the spans of a text change from key layer to key layer."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mta_framework import AlignmentTerm, KeyLayer, LayerPair, PluginParams, TeacherNeed, texts_with_span_pairs

if TYPE_CHECKING:
    from torch import Tensor, nn


class Trajectory(AlignmentTerm):
    """Squared differences of the cosines between the changes of a text's spans over depth, in student and teacher.

    The change of a span is ``C_k = U'_k / |U'_k| - U_k / |U_k|``, the difference of the directions of its vectors at a
    key layer, U', and at the next lower one of the same granularity, U. The value of a text is the weighted mean over
    all ordered pairs i != j of its spans of ``(cos(C^S_i, C^S_j) - cos(C^T_i, C^T_j))^2``, with weights ``w_i w_j``:
    the teacher's span weights w at the upper layer. It needs no projection, since it compares angles within each model.

    Source: this project. It applies Eq. 10-11 of MTA (arXiv 2605.01374v2) to changes in place of span vectors.
    """

    NAME = "trajectory"
    TITLE = "trajectory"

    class Params(PluginParams):
        """Options."""

        reduction: Literal["example", "batch"] = Field(
            "example", description="Normalise by the pair weights of each text, or once per micro-batch."
        )
        max_spans: int | None = Field(
            None,
            ge=2,
            description="Maximal number of spans of a text, those with the largest teacher weights; null: all.",
        )

    params: Params

    def teacher_needs(self, has_shared_tokenizer: bool) -> Collection[TeacherNeed]:
        """Angles between changes, and span weights at the upper layer."""
        return ("change_geometry", "span_weights")

    def unit(self, granularity: str) -> str:
        """Texts with at least two spans."""
        return texts_with_span_pairs(granularity)

    def key_layers(self, pairs: Sequence[LayerPair]) -> Sequence[LayerPair]:
        """Choose the key layers to which both models change from a lower one of the same granularity.

        Raises:
            ValueError: There is none.
        """
        upper = set(_upper(pairs))
        if not upper:
            raise ValueError(
                "compares changes from one key layer to the next of the same granularity, and there are none "
                f"(got {', '.join(map(str, pairs))}); expected two key layers of one granularity, at different layers "
                "of both models. Change alignment.layers, e.g. to two or more layers of words or of phrases."
            )
        return [pair for pair in pairs if pair in upper]

    def compute(self, layer: KeyLayer, module: nn.Module | None) -> Tensor:
        """Compute the term for the change to one key layer, summed over the texts with at least two spans."""
        from mta_framework.alignment.pairwise_cosines import directions, structure_sum

        assert layer.previous is not None
        return structure_sum(
            directions(layer.student.span_vector_SD) - directions(layer.previous.student.span_vector_SD),
            layer.teacher.change_geometry,
            layer.teacher.span_weight_S,
            layer.spans_per_text,
            self.params.reduction,
            self.params.max_spans,
        )


def _upper(pairs: Sequence[LayerPair]) -> Iterator[LayerPair]:
    """Key layers that differ in both models from the next lower one of their granularity."""
    for granularity in {pair.granularity for pair in pairs}:
        for lower, pair in pairwise(sorted(pair for pair in pairs if pair.granularity == granularity)):
            if lower.student != pair.student and lower.teacher != pair.teacher:
                yield pair
