"""The teacher's side of a key layer by what was kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from mta_framework.alignment.importance import CheckedImportance, upcast
from mta_framework.alignment.model_layer import LiveTeacherLayer
from mta_framework.alignment.unchanged_inputs import lazy_tensor
from mta_framework.errors import RunError
from mta_framework.interfaces import ImportanceEstimator
from mta_framework.types import Batch, RecordedQuantity, RecordSlot, SpanIndex


class RecordedTokenWeights:
    """Token weights of one micro-batch that were kept; stands for ``TokenWeights``.

    Args:
        importance: Estimator that the weights are of.
        records: What was kept of the teacher.
        batch: The texts in the teacher's tokens.
    """

    def __init__(self, importance: CheckedImportance, records: Mapping[RecordSlot, Tensor], batch: Batch):
        self._importance = importance
        self._records = records
        self._batch = batch

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the estimator."""
        return self._importance.estimator.fingerprint()

    def at(self, layer: int, index: SpanIndex) -> Tensor:
        """Flat weights at a 1-based layer, (B * T,); those of tokens outside of all spans are 0."""
        granularity = next(name for name, known in self._batch.spans.items() if known is index)
        weight_U = kept_tensor(self._records, weight_slot(self._importance.estimator, layer, granularity))
        return weight_U.new_zeros(self._batch.input_ids_BT.numel()).index_copy(0, index.token_U, weight_U)


def weight_slot(estimator: ImportanceEstimator, layer: int, granularity: str) -> RecordSlot:
    """Slot of the teacher's token weights at a layer; those that follow from its output belong to no layer."""
    return RecordSlot("token_weights", 0 if estimator.BY_TEACHER else layer, granularity, estimator.fingerprint())


class RecordedTeacherLayer(LiveTeacherLayer):
    """The teacher's side of a key layer, by what was kept of it (``States.records``); implements ``TeacherLayer``.

    Hidden states are NaN on padding.
    """

    @lazy_tensor
    def span_token_UD(self) -> Tensor:
        """States of the distinct tokens of spans."""
        return upcast(self._at("span_token_states"))

    @lazy_tensor
    def span_vector_SD(self) -> Tensor:
        """Span vectors, pooled by token weights."""
        return upcast(self._at("span_vectors", self._pooled))

    @cached_property
    def geometry(self) -> RecordedGeometry:
        """Cosines between the span vectors of each text."""
        return RecordedGeometry(self._at("geometry", self._pooled), self._pair_indices)

    def _changes_since(self, previous: LiveTeacherLayer) -> RecordedGeometry:
        return RecordedGeometry(self._at("change_geometry", self._pooled, previous.pair.teacher), self._pair_indices)

    @property
    def _pooled(self) -> str:
        assert isinstance(self._pooling, RecordedTokenWeights)
        return self._pooling.fingerprint

    @property
    def _pair_indices(self) -> Tensor:
        return self._kept(RecordSlot("pair_indices", granularity=self.pair.granularity))

    def _at(self, quantity: RecordedQuantity, estimator: str = "", below: int = 0) -> Tensor:
        return self._kept(RecordSlot(quantity, self.pair.teacher, self.pair.granularity, estimator, below))

    def _kept(self, slot: RecordSlot) -> Tensor:
        assert self._states.records is not None
        return kept_tensor(self._states.records, slot)


class RecordedGeometry:
    """The cosines between spans that were kept: the upper triangle of each text's matrix; implements ``SpanCosines``.

    Args:
        cosine_P: Cosines of the pairs i < j of each text, text by text and row by row, and one more value.
        index_3S: int64, for each span the offset of its text in ``cosine_P``, its index in its text, and the number of
            spans that the text has.
    """

    def __init__(self, cosine_P: Tensor, index_3S: Tensor):
        self._cosine_P = cosine_P
        self._index_3S = index_3S

    def select(self, span_K: Tensor) -> RecordedGeometry:
        """Restrict it to some spans; see ``SpanCosines``."""
        return RecordedGeometry(self._cosine_P, self._index_3S.index_select(1, span_K))

    @torch.no_grad()
    def subtract_from(self, cosine_RS: Tensor, text: slice, rows: slice) -> None:
        """Subtract the cosines of some spans with all spans of their text, in place; see ``SpanCosines``.

        The cosine of a span with itself is 1, even that of a zero vector; where ``text`` is several texts, that of
        spans of two of them may be anything finite.
        """
        offset_R1, row_R1, size_R1 = self._index_3S[:, rows, None]
        column_S = self._index_3S[1, text]
        low_RS, high_RS = torch.minimum(row_R1, column_S), torch.maximum(row_R1, column_S)
        before_RS = (low_RS * (2 * size_R1 - low_RS - 1)).div_(2, rounding_mode="floor")  # pairs of the rows above
        pair_RS = offset_R1 + before_RS + high_RS - low_RS - 1
        # Those of a span with itself or with a span of another text are no pairs.
        kept_RS = self._cosine_P[pair_RS.clamp_(0, len(self._cosine_P) - 1)].to(cosine_RS.dtype)
        cosine_RS -= torch.where(low_RS == high_RS, 1.0, kept_RS)


def kept_tensor(records: Mapping[RecordSlot, Tensor], slot: RecordSlot) -> Tensor:
    """Look up a tensor of what was kept.

    Raises:
        RunError: It was not kept.
    """
    if slot not in records:
        raise RunError(f"{' '.join(str(part) for part in slot if part)} of the teacher was not kept for this run")
    return records[slot]
