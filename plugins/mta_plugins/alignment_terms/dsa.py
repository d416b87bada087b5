"""Dynamic structural alignment: the relative geometry of the spans of a text."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mta_framework import AlignmentTerm, KeyLayer, PluginParams, TeacherNeed, texts_with_span_pairs

if TYPE_CHECKING:
    from torch import Tensor, nn


class DSA(AlignmentTerm):
    """Squared differences of the cosines between a text's spans, in the student and in the teacher.

    The value of a text is the weighted mean over all ordered pairs i != j of its spans of
    ``(cos(U^S_i, U^S_j) - cos(U^T_i, U^T_j))^2``, with weights ``w_i w_j``: the span vectors U of both models, the
    teacher's span weights w. It needs no projection, since it compares angles within each model.

    Source: MTA (arXiv 2605.01374v2), Eq. 10-11.
    """

    NAME = "dsa"
    TITLE = "DSA"

    class Params(PluginParams):
        """Options."""

        reduction: Literal["example", "batch"] = Field(
            "example",
            description="Normalise by the pair weights of each text, or once per micro-batch (authors' code).",
        )
        weights: Literal["importance", "equal"] = Field(
            "importance",
            description="Weights of pairs: the products of their spans' weights, or equal (the paper's ablation).",
        )
        max_spans: int | None = Field(
            None,
            ge=2,
            description="Maximal number of spans of a text, those with the largest weights and of equal ones the "
            "first; null: all.",
        )

    params: Params

    def teacher_needs(self, has_shared_tokenizer: bool) -> Collection[TeacherNeed]:
        """Angles, and span weights where pairs are weighed by them."""
        needs: tuple[TeacherNeed, TeacherNeed] = ("geometry", "span_weights")
        return needs if self.params.weights == "importance" else needs[:1]

    def unit(self, granularity: str) -> str:
        """Texts with at least two spans."""
        return texts_with_span_pairs(granularity)

    def compute(self, layer: KeyLayer, module: nn.Module | None) -> Tensor:
        """Compute DSA of one key layer, summed over the texts with at least two spans."""
        from mta_framework.alignment.pairwise_cosines import structure_sum

        vector_SD, weighed = layer.student.span_vector_SD, self.params.weights == "importance"
        weight_S = layer.teacher.span_weight_S if weighed else vector_SD.new_ones(len(vector_SD))
        return structure_sum(
            vector_SD,
            layer.teacher.geometry,
            weight_S,
            layer.spans_per_text,
            self.params.reduction,
            self.params.max_spans,
        )
