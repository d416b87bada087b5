"""Span logits: what both models' heads make of a span, compared on the tokens that both vocabularies have (SRA)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mta_framework import AlignmentTerm, KeyLayer, LayerPair, PluginParams, StudentLayer, TeacherNeed

if TYPE_CHECKING:
    from torch import Tensor

    from mta_framework.chunked_loss import HeadInputs


class SpanLogits(AlignmentTerm):
    """KL divergence between the next-token distributions of the span vectors, at the last key layer (SRA).

    The value of a text is ``sum_k w_k KL(p_k || q_k)`` in nats, by the teacher's span weights w; p_k and q_k are the
    distributions that the heads of teacher and student give for the span vectors U^T_k and U^S_k. Vectors of a layer
    below the last pass the model's final norm first. Where the vocabularies differ, both distributions are restricted
    to the tokens of the same text and normalised again. The heads are applied in chunks: there are never logits of all
    spans at once.

    Source: SRA (arXiv 2605.01205), its distillation of span logits, as far as it is known: see the page of this term.
    """

    NAME = "span_logits"
    TITLE = "Span logits"

    class Params(PluginParams):
        """Options."""

        layers: Literal["last", "all"] = Field(
            "last",
            description="Key layers at which it is computed: the last one (after SRA), or all.",
        )

    params: Params

    def teacher_needs(self, has_shared_tokenizer: bool) -> Collection[TeacherNeed]:
        """Span vectors and weights, and the head."""
        return ("span_vectors", "span_weights", "head")

    def key_layers(self, pairs: Sequence[LayerPair]) -> Sequence[LayerPair]:
        """The pair of the student's last key layer, one for each granularity that is compared there; or all pairs."""
        if self.params.layers == "all":
            return pairs
        last = max(pair.student for pair in pairs)
        return [pair for pair in pairs if pair.student == last]

    def compute(self, layer: KeyLayer, module: object) -> Tensor:
        """Compute the divergence at one key layer, summed over the texts with a span."""
        import torch

        from mta_framework.chunked_loss import chunked_sum

        ids = layer.shared_vocabulary or (None, None)
        student, weight_S = _head_inputs(layer.student, layer.pair.student, ids[0]), layer.teacher.span_weight_S
        with torch.no_grad(), torch.autocast(weight_S.device.type, enabled=False):
            teacher = _head_inputs(layer.teacher, layer.pair.teacher, ids[1])
        return chunked_sum(_weighted_kl, student, teacher, weight_S)


def _head_inputs(side: StudentLayer, layer: int, id_V: Tensor | None) -> HeadInputs:
    """The span vectors of one model as its head takes them, and the rows of the head for the shared tokens."""
    from mta_framework.chunked_loss import HeadInputs

    final = side.final_layers
    # The teacher's norm and head may be in 16 bits; the student's are in float32.
    vector_SD = side.span_vector_SD.to(side.head.weight_VD.dtype)
    if layer < final.shape.num_layers:
        assert final.norm is not None, "the run refuses such models"
        vector_SD = final.norm(vector_SD)
    if final.projection is not None:
        vector_SD = final.projection(vector_SD)
    head = side.head
    if id_V is not None:
        # Rows before products: the tokens that one vocabulary has alone, often most of them, cost nothing.
        bias_V = None if head.bias_V is None else head.bias_V.index_select(0, id_V)
        head = replace(head, weight_VD=head.weight_VD.index_select(0, id_V), bias_V=bias_V)
    return HeadInputs(vector_SD, head)


def _weighted_kl(student_logits: Tensor, teacher_logits: Tensor, weight_n: Tensor) -> Tensor:
    from mta_framework.chunked_loss import forward_kl

    return weight_n * forward_kl(student_logits, teacher_logits)
