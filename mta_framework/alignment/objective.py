"""The two terms that MTA adds to a base loss, over all key layers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import torch
from torch import nn

from mta_framework.alignment.hidden import hidden_sum, span_hidden_sum
from mta_framework.alignment.pooling import normalise, span_vectors, span_weights
from mta_framework.alignment.structure import Reduction, structure_sum
from mta_framework.errors import RunError
from mta_framework.interfaces import ImportanceEstimator
from mta_framework.types import (
    Batch,
    LayerPair,
    LossTerm,
    LossTerms,
    SpanIndex,
    States,
    texts_with_pairs,
    texts_with_spans,
)


class Alignment(nn.Module):
    """``lambda_dsa * DSA + lambda_hid * Hid`` (MTA, Eq. 10-14). Its parameters are Hid's linear maps, nothing else.

    Args:
        pairs: Key layers.
        importance: Weighs tokens, the teacher's and the student's each by their own states.
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
        self.importance = importance
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
        for number, pair in enumerate(self.pairs):
            layer = _Layer(self, pair, student, teacher, batch)
            if self.dsa_weight > 0:
                total = layer.structure_sum(self.dsa_reduction, self.max_spans)
                terms.append(LossTerm("dsa", total, texts_with_pairs(pair.granularity), self.dsa_weight))
            if self.hid_weight > 0:
                total = layer.hidden_sum(self.projections[number])
                terms.append(LossTerm("hid", total, texts_with_spans(pair.granularity), self.hid_weight))
        return tuple(terms)

    @torch.no_grad()
    def weights(self, states: States, layer: int, batch: Batch, index: SpanIndex) -> torch.Tensor:
        """Flat token weights of one model at one of its layers, normalised over the memberships of each text.

        Raises:
            RunError: The estimator gives another shape.
        """
        mask_BT = batch.attention_mask_BT
        weight_BT = self.importance.weigh(states, layer, mask_BT)
        if weight_BT.shape != mask_BT.shape:
            shapes = f"got {tuple(weight_BT.shape)} for texts and tokens {tuple(mask_BT.shape)}"
            raise RunError(f"importance estimator {self.importance.NAME}: gives weights of another shape ({shapes})")
        return normalise(weight_BT, index)


class _Layer:
    """One key layer on one micro-batch: what both terms are made of, computed when it is asked for."""

    def __init__(self, alignment: Alignment, pair: LayerPair, student: States, teacher: States, batch: Batch):
        self._alignment = alignment
        self._pair = pair
        self._student = student
        self._batch = batch
        self._hidden_BTD = student.layers[pair.student]
        self._teacher_BTD = teacher.layers[pair.teacher]
        others = batch.teacher or batch
        self.index = others.spans[pair.granularity]
        """The spans in the teacher's tokens."""
        self._teacher_weight = alignment.weights(teacher, pair.teacher, others, self.index)

    @cached_property
    def span_weights(self) -> torch.Tensor:
        """weight_S by the teacher's token weights."""
        return span_weights(self._teacher_weight, self.index)

    @cached_property
    def span_vectors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The student's and the teacher's, each pooled by its own weights."""
        own = self._batch.spans[self._pair.granularity]
        weight = self._alignment.weights(self._student, self._pair.student, self._batch, own)
        with torch.no_grad():
            teacher_SD = span_vectors(self._teacher_BTD, self._teacher_weight, self.index)
        return span_vectors(self._hidden_BTD, weight, own), teacher_SD

    def structure_sum(self, reduction: Reduction, max_spans: int | None) -> torch.Tensor:
        """DSA."""
        spans_per_text = self.index.spans_per_text
        return structure_sum(*self.span_vectors, self.span_weights, spans_per_text, reduction, max_spans)

    def hidden_sum(self, projection: nn.Module) -> torch.Tensor:
        """Hid over tokens, or over spans where teacher and student cut the text into other tokens."""
        if self._batch.teacher is None:
            return hidden_sum(projection, self._hidden_BTD, self._teacher_BTD, self._teacher_weight, self.index)
        return span_hidden_sum(projection, *self.span_vectors, self.span_weights)
