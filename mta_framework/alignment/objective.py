"""The two loss terms that MTA adds to a base loss, over all key layers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Literal

import torch
from torch import nn

from mta_framework.alignment.dsa import Reduction, structure_sum
from mta_framework.alignment.hid import hidden_sum, span_hidden_sum
from mta_framework.alignment.importance import (
    CheckedImportance,
    TokenWeights,
    span_vectors,
    span_weights,
    token_weights,
)
from mta_framework.interfaces import ImportanceEstimator
from mta_framework.types import (
    Batch,
    LayerPair,
    LossTerm,
    LossTerms,
    States,
    texts_with_span_pairs,
    texts_with_spans,
)


class Alignment(nn.Module):
    """MTA's alignment loss ``lambda_dsa * DSA + lambda_hid * Hid``; its only parameters are Hid's projections.

    Args:
        pairs: Key layers.
        importance: Estimator of token weights, called with each model's own states unless it is ``BY_TEACHER``.
        student_width: Width of the student's hidden states.
        teacher_width: Width of the teacher's hidden states.
        lambda_dsa: Weight of DSA; at 0 it is not computed.
        lambda_hid: Weight of Hid; at 0 it is not computed, and there are no projections.
        dsa_reduction: Normalisation of the pair weights, see ``structure_sum``.
        max_spans: Most spans per text that DSA compares, see ``structure_sum``; None: all.
        hid_reduction: ``mean`` over the key layers (authors' code) or ``sum`` (the paper's equation).

    Source: MTA (arXiv 2605.01374v2), Eq. 10-14.
    """

    def __init__(
        self,
        pairs: Sequence[LayerPair],
        importance: ImportanceEstimator,
        *,
        student_width: int,
        teacher_width: int,
        lambda_dsa: float = 2.0,
        lambda_hid: float = 0.2,
        dsa_reduction: Reduction = "example",
        max_spans: int | None = None,
        hid_reduction: Literal["mean", "sum"] = "mean",
    ):
        super().__init__()
        self.pairs = tuple(pairs)
        self._importance = importance
        self._checked_importance = CheckedImportance(importance)
        self.dsa_weight = lambda_dsa / len(self.pairs)
        self.dsa_reduction = dsa_reduction
        self.max_spans = max_spans
        self.hid_weight = lambda_hid / (len(self.pairs) if hid_reduction == "mean" else 1)
        count = len(self.pairs) if lambda_hid > 0 else 0
        self.projections = nn.ModuleList(nn.Linear(student_width, teacher_width) for _ in range(count))

    def forward(self, student: States, teacher: States, batch: Batch) -> LossTerms:
        """Compute both terms on one micro-batch.

        Args:
            student: The student's states, its key layers included; they get gradients.
            teacher: The teacher's states, its key layers included; no gradient. They may be inference tensors.
            batch: Micro-batch with the spans of every granularity of the pairs.

        Returns:
            One term ``dsa`` and one term ``hid`` per key layer, as sums over texts, in the units
            ``texts_with_span_pairs`` and ``texts_with_spans``. A text without spans adds nothing; every parameter gets
            a gradient in any case, if only zeros.
        """
        terms: list[LossTerm] = []
        weights = token_weights(self._checked_importance, student, teacher, batch)
        for index, pair in enumerate(self.pairs):
            layer = _KeyLayer(pair, student, teacher, batch, weights)
            if self.dsa_weight > 0:
                total = layer.structure_sum(self.dsa_reduction, self.max_spans)
                terms.append(LossTerm("dsa", total, texts_with_span_pairs(pair.granularity), self.dsa_weight))
            if self.hid_weight > 0:
                total = layer.hidden_sum(self.projections[index])
                terms.append(LossTerm("hid", total, texts_with_spans(pair.granularity), self.hid_weight))
        return tuple(terms)

    @torch.no_grad()
    def span_vectors(self, student: States, teacher: States, batch: Batch) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Compute the span vectors that DSA compares, without gradient, for each key layer.

        Args:
            student: The student's states, as for ``forward``.
            teacher: The teacher's states, as for ``forward``.
            batch: Micro-batch with spans; unsound weights on it are not recorded for ``fault``.

        Returns:
            The student's and the teacher's vector_SD of each key layer.
        """
        weights = token_weights(CheckedImportance(self._importance), student, teacher, batch)
        return [_KeyLayer(pair, student, teacher, batch, weights).span_vectors for pair in self.pairs]

    def fault(self) -> str | None:
        """Describe the importance estimator's first unsound weight in a sentence; None if there was none."""
        return self._checked_importance.fault()


class _KeyLayer:
    """One key layer on one micro-batch: the parts of both terms, computed when they are first needed."""

    def __init__(
        self,
        pair: LayerPair,
        student: States,
        teacher: States,
        batch: Batch,
        weights: tuple[TokenWeights, TokenWeights],
    ):
        self._shared_tokenizer = batch.teacher is None
        self._student_BTD = student.layers[pair.student]
        self._teacher_BTD = teacher.layers[pair.teacher]
        self._student_index = batch.spans[pair.granularity]
        self._teacher_index = (batch.teacher or batch).spans[pair.granularity]
        self._student_weight = partial(weights[0].at, pair.student, self._student_index)
        self._teacher_weight = weights[1].at(pair.teacher, self._teacher_index)

    @cached_property
    def span_weights(self) -> torch.Tensor:
        """weight_S from the teacher's token weights."""
        return span_weights(self._teacher_weight, self._teacher_index)

    @cached_property
    def span_vectors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Student's and teacher's vector_SD, each pooled by that model's token weights."""
        with torch.no_grad():
            teacher_SD = span_vectors(self._teacher_BTD, self._teacher_weight, self._teacher_index)
        return span_vectors(self._student_BTD, self._student_weight(), self._student_index), teacher_SD

    def structure_sum(self, reduction: Reduction, max_spans: int | None) -> torch.Tensor:
        """DSA of this key layer."""
        spans_per_text = self._teacher_index.spans_per_text
        return structure_sum(*self.span_vectors, self.span_weights, spans_per_text, reduction, max_spans)

    def hidden_sum(self, projection: nn.Module) -> torch.Tensor:
        """Hid of this key layer: over tokens, or over spans where the tokenizers differ."""
        if self._shared_tokenizer:
            states = self._student_BTD, self._teacher_BTD
            return hidden_sum(projection, *states, self._teacher_weight, self._teacher_index)
        return span_hidden_sum(projection, *self.span_vectors, self.span_weights)
