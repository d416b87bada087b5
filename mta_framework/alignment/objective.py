"""The two terms that MTA adds to a base loss, over all key layers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Literal

import torch
from torch import nn

from mta_framework.alignment.checked_importance import CheckedImportance
from mta_framework.alignment.hidden import hidden_sum, span_hidden_sum
from mta_framework.alignment.importance import TokenWeights, both_weights
from mta_framework.alignment.pooling import span_vectors, span_weights
from mta_framework.alignment.structure import Reduction, structure_sum
from mta_framework.interfaces import ImportanceEstimator
from mta_framework.types import (
    Batch,
    LayerPair,
    LossTerm,
    LossTerms,
    States,
    texts_with_pairs,
    texts_with_spans,
)


class Alignment(nn.Module):
    """``lambda_dsa * DSA + lambda_hid * Hid`` (MTA, Eq. 10-14). Its parameters are Hid's linear maps, nothing else.

    Args:
        pairs: Key layers.
        importance: Weighs tokens, the teacher's and the student's each by their own states unless it is ``BY_TEACHER``.
        student_width: Width of the student's hidden states.
        teacher_width: Of the teacher's.
        lambda_dsa: Weight of DSA; 0: it isn't computed.
        lambda_hid: Weight of Hid; 0: it isn't computed and there are no linear maps.
        dsa_reduction: See ``structure_sum``.
        max_spans: See ``structure_sum``.
        hid_reduction: ``mean`` over the key layers (authors' code) or ``sum`` (the paper's equation).
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
        self._guard = CheckedImportance(importance)
        self.dsa_weight = lambda_dsa / len(self.pairs)
        self.dsa_reduction = dsa_reduction
        self.max_spans = max_spans
        self.hid_weight = lambda_hid / (len(self.pairs) if hid_reduction == "mean" else 1)
        count = len(self.pairs) if lambda_hid > 0 else 0
        self.projections = nn.ModuleList(nn.Linear(student_width, teacher_width) for _ in range(count))

    def forward(self, student: States, teacher: States, batch: Batch) -> LossTerms:
        """Both terms on one micro-batch.

        Args:
            student: With its key layers; gets gradients.
            teacher: With its key layers; its tensors may be inference tensors.
            batch: With the spans of every granularity of the pairs.

        Returns:
            One term ``dsa`` and one term ``hid`` per key layer, as sums over texts, in units of
            ``texts_with_pairs`` and ``texts_with_spans``. Texts without spans add nothing; every parameter gets a
            gradient all the same, a zero one if need be.
        """
        terms: list[LossTerm] = []
        weights = both_weights(self._guard, student, teacher, batch)
        for number, pair in enumerate(self.pairs):
            layer = _Layer(pair, student, teacher, batch, weights)
            if self.dsa_weight > 0:
                total = layer.structure_sum(self.dsa_reduction, self.max_spans)
                terms.append(LossTerm("dsa", total, texts_with_pairs(pair.granularity), self.dsa_weight))
            if self.hid_weight > 0:
                total = layer.hidden_sum(self.projections[number])
                terms.append(LossTerm("hid", total, texts_with_spans(pair.granularity), self.hid_weight))
        return tuple(terms)

    @torch.no_grad()
    def span_vectors(self, student: States, teacher: States, batch: Batch) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """What DSA compares, to be looked at: the student's and the teacher's span vectors, for each key layer.

        Args:
            student: As for ``forward``.
            teacher: Likewise.
            batch: Likewise; what the importance estimator does wrong on it is not noted.
        """
        weights = both_weights(CheckedImportance(self._importance), student, teacher, batch)
        return [_Layer(pair, student, teacher, batch, weights).span_vectors for pair in self.pairs]

    def fault(self) -> str | None:
        """What the importance estimator did wrong, as a sentence; for when a term is not finite."""
        return self._guard.fault()


class _Layer:
    """One key layer on one micro-batch: what both terms are made of, computed when it is asked for."""

    def __init__(
        self,
        pair: LayerPair,
        student: States,
        teacher: States,
        batch: Batch,
        weights: tuple[TokenWeights, TokenWeights],
    ):
        self._shared = batch.teacher is None
        self._hidden_BTD = student.layers[pair.student]
        self._teacher_BTD = teacher.layers[pair.teacher]
        self._own = batch.spans[pair.granularity]
        self._index = (batch.teacher or batch).spans[pair.granularity]
        self._weight = partial(weights[0].at, pair.student, self._own)
        self._teacher_weight = weights[1].at(pair.teacher, self._index)

    @cached_property
    def span_weights(self) -> torch.Tensor:
        """weight_S by the teacher's token weights."""
        return span_weights(self._teacher_weight, self._index)

    @cached_property
    def span_vectors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The student's and the teacher's, each pooled by its own weights."""
        with torch.no_grad():
            teacher_SD = span_vectors(self._teacher_BTD, self._teacher_weight, self._index)
        return span_vectors(self._hidden_BTD, self._weight(), self._own), teacher_SD

    def structure_sum(self, reduction: Reduction, max_spans: int | None) -> torch.Tensor:
        """DSA."""
        spans_per_text = self._index.spans_per_text
        return structure_sum(*self.span_vectors, self.span_weights, spans_per_text, reduction, max_spans)

    def hidden_sum(self, projection: nn.Module) -> torch.Tensor:
        """Hid over tokens, or over spans where teacher and student cut the text into other tokens."""
        if self._shared:
            return hidden_sum(projection, self._hidden_BTD, self._teacher_BTD, self._teacher_weight, self._index)
        return span_hidden_sum(projection, *self.span_vectors, self.span_weights)
