"""Span logits: what both models' heads make of a span, compared on the tokens that both vocabularies have (SRA)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mta_framework import AlignmentTerm, KeyLayer, LayerPair, PluginParams, RunError, StudentLayer, TeacherNeed

if TYPE_CHECKING:
    from torch import Tensor

    from mta_framework.chunked_loss import HeadInputs

_EXCLUDED = -1e30
"""Logit of a token that only one vocabulary has: no probability and, unlike infinity, no NaN in differences."""


class SpanLogits(AlignmentTerm):
    """KL divergence between the next-token distributions of the span vectors, at the last key layers (SRA).

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
            description="Key layers at which it is computed: the last one of each granularity (after SRA), or all.",
        )

    params: Params

    def teacher_needs(self, has_shared_tokenizer: bool) -> Collection[TeacherNeed]:
        """Span vectors and weights, and the head."""
        return ("span_vectors", "span_weights", "head")

    def key_layers(self, pairs: Sequence[LayerPair]) -> Sequence[LayerPair]:
        """The last pair of each granularity, or all."""
        if self.params.layers == "all":
            return pairs
        last = {pair.granularity: pair for pair in sorted(pairs)}
        return [pair for pair in pairs if last[pair.granularity] == pair]

    def compute(self, layer: KeyLayer, module: object) -> Tensor:
        """Compute the divergence at one key layer, summed over the texts with a span."""
        import torch

        from mta_framework.chunked_loss import chunked_sum, forward_kl

        student, weight_S = _head_inputs(layer.student, layer.pair.student), layer.teacher.span_weight_S
        with torch.no_grad(), torch.autocast(weight_S.device.type, enabled=False):
            teacher = _head_inputs(layer.teacher, layer.pair.teacher)
        ids, divergence = layer.shared_vocabulary, forward_kl
        if ids is not None:
            divergence = partial(_restricted_kl, **_restriction(*ids, len(student.head.weight_VD)))

        def weighted(student_logits: Tensor, teacher_logits: Tensor, weight_n: Tensor) -> Tensor:
            return weight_n * divergence(student_logits, teacher_logits)

        return chunked_sum(weighted, student, teacher, weight_S, shared_vocabulary=ids is None)


def _head_inputs(side: StudentLayer, layer: int) -> HeadInputs:
    """The span vectors of one model as its head takes them."""
    from mta_framework.chunked_loss import HeadInputs

    final = side.final_layers
    # The teacher's norm and head may be in 16 bits; the student's are in float32.
    vector_SD = side.span_vector_SD.to(side.head.weight_VD.dtype)
    if layer < final.shape.num_layers:
        if final.norm is None:
            raise RunError(
                "alignment term 'span_logits' needs the final norm of a model below its last layer, and none was found "
                "in this one. Choose key layers of which the last ones are the models' last layers."
            )
        vector_SD = final.norm(vector_SD)
    if final.projection is not None:
        vector_SD = final.projection(vector_SD)
    return HeadInputs(vector_SD, side.head)


def _restriction(student_ids: Tensor, teacher_ids: Tensor, vocabulary: int) -> dict[str, Tensor]:
    """For each token of the student: the teacher's id of it, 0 without one; and whether there is none."""
    import torch

    everything = torch.ones(vocabulary, dtype=torch.bool, device=student_ids.device)
    return {
        "teacher_id_V": student_ids.new_zeros(vocabulary).index_copy(0, student_ids, teacher_ids),
        "excluded_V": everything.index_fill(0, student_ids, False),
    }


def _restricted_kl(student_logits: Tensor, teacher_logits: Tensor, teacher_id_V: Tensor, excluded_V: Tensor) -> Tensor:
    """KL(p || q) of both distributions on the shared tokens alone, (n,), from logits (n, V) and (n, V')."""
    from mta_framework.chunked_loss import forward_kl

    teacher_nV = teacher_logits.index_select(-1, teacher_id_V).masked_fill(excluded_V, _EXCLUDED)
    return forward_kl(student_logits.masked_fill(excluded_V, _EXCLUDED), teacher_nV)
