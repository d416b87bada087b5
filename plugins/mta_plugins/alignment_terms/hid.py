"""Hidden-state alignment: cosine distance of the student's projected states to the teacher's."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mta_framework import (
    AlignmentTerm,
    KeyLayer,
    ModelShape,
    PluginParams,
    TeacherNeed,
    span_memberships,
    texts_with_spans,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

_EPSILON = 1e-6


class Hid(AlignmentTerm):
    """Cosine distance between the student's projected hidden states and the teacher's, at the tokens of spans.

    The value of a text is the weighted mean of ``1 - cos(W h^S_t + b, h^T_t)`` over all its (token, span) memberships,
    by the teacher's token weights; the linear map W, b of each key layer is trained. A token has the same distance in
    each of its spans, so it is computed once and multiplied by their number. Between different tokenizers span vectors
    and span weights take the place of states and token weights. With equal ``weights`` the value is the mean over the
    memberships of the whole batch instead.

    Source: MTA (arXiv 2605.01374v2), Eq. 12-13.
    """

    NAME = "hid"
    TITLE = "Hid"

    class Params(PluginParams):
        """Options."""

        reduction: Literal["mean", "sum"] = Field(
            "mean", description="Reduction over key layers: mean (authors' code) or sum (the paper's equation)."
        )
        weights: Literal["importance", "equal"] = Field(
            "importance",
            description="Weights of tokens: the teacher's per text, or equal over all texts (the paper's ablation).",
        )

    params: Params

    @property
    def has_parameters(self) -> bool:
        """True: one linear map for each key layer."""
        return True

    def teacher_needs(self, has_shared_tokenizer: bool) -> Collection[TeacherNeed]:
        """States and weights of span tokens, between different tokenizers those of spans; no weights if equal."""
        needs: tuple[TeacherNeed, TeacherNeed] = (
            ("span_tokens", "token_weights") if has_shared_tokenizer else ("span_vectors", "span_weights")
        )
        return needs if self.params.weights == "importance" else needs[:1]

    def unit(self, granularity: str) -> str:
        """Texts with spans; with equal weights the memberships."""
        return (texts_with_spans if self.params.weights == "importance" else span_memberships)(granularity)

    def divisor(self, num_layers: int) -> int:
        """The number of key layers for the mean over them, 1 for the sum."""
        return num_layers if self.params.reduction == "mean" else 1

    def make_module(self, student: ModelShape, teacher: ModelShape) -> nn.Module:
        """Make the linear map from the student's width to the teacher's."""
        from torch import nn

        return nn.Linear(student.hidden_size, teacher.hidden_size)

    def compute(self, layer: KeyLayer, module: nn.Module | None) -> Tensor:
        """Compute Hid of one key layer, summed over the texts with a span."""
        from torch.nn import functional

        assert module is not None
        if layer.has_shared_tokenizer:
            student, teacher = layer.student.span_token_UD, layer.teacher.span_token_UD
        else:
            student, teacher = layer.student.span_vector_SD, layer.teacher.span_vector_SD
        # Under autocast the projection is in 16 bits, in which small angles would be lost.
        projected = module(student).to(teacher.dtype)
        cosine = functional.cosine_similarity(projected, teacher, dim=-1, eps=_EPSILON)
        return (self._weight(layer) * (1 - cosine)).sum()

    def _weight(self, layer: KeyLayer) -> Tensor:
        """Weights of the tokens of spans, or of the spans between different tokenizers."""
        if self.params.weights == "importance":
            return layer.teacher.token_weight_U if layer.has_shared_tokenizer else layer.teacher.span_weight_S
        index = layer.student.index
        if layer.has_shared_tokenizer:
            return index.multiplicity_U
        memberships_S = index.multiplicity_U.new_zeros(len(index.text_S))
        return memberships_S.index_add(0, index.span_M, memberships_S.new_ones(len(index.span_M)))
