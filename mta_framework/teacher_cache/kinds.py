"""What is kept of a teacher: exactly what base loss and alignment terms declare, as kinds of records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mta_framework.alignment.objective import PlacedTerm
from mta_framework.alignment.recorded_layer import weight_slot
from mta_framework.interfaces import BaseLoss, ImportanceEstimator, TeacherNeed
from mta_framework.storage import json_digest
from mta_framework.teacher_cache.mapped_shard import RECORD_OVERHEAD
from mta_framework.teacher_cache.record_labels import record_label
from mta_framework.teacher_cache.store import DIGEST_LENGTH
from mta_framework.types import Example, LayerPair, RecordedQuantity, RecordSlot

VERSION = 1
"""Version of the records: increased when the same teacher and text give other records than before."""

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int32": 4}

_SCALE_BYTES = 4
"""An 8-bit row begins with its scale, in float32."""

_SUPERVISED_QUANTITIES = {"final_states", "top_tokens"}
_SPAN_QUANTITIES = {"span_token_states", "span_vectors", "geometry", "change_geometry", "token_weights"}


@dataclass(frozen=True)
class RecordKind:
    """One quantity that is kept of every text, e.g. the cosines of phrases at layer 24.

    Args:
        slot: What it is, and where in the teacher.
        dtype: Dtype of the values: ``float32``, ``bfloat16`` or ``float16``, as the losses get them; ``int32`` for
            likeliest tokens.
        width: Values per row: the width of the states, or 1.
        is_8_bit: Whether rows are kept as 8-bit integers with a scale each.
    """

    slot: RecordSlot
    dtype: str
    width: int = 1
    is_8_bit: bool = False

    @property
    def row_bytes(self) -> int:
        """Bytes of a row on disk."""
        return self.width + _SCALE_BYTES if self.is_8_bit else self.width * ITEM_BYTES[self.dtype]

    @property
    def description(self) -> dict[str, Any]:
        """Whatever the records depend on besides teacher and text, as JSON."""
        return {
            "version": VERSION,
            **self.slot._asdict(),
            "dtype": self.dtype,
            "width": self.width,
            "bits": 8 if self.is_8_bit else 8 * ITEM_BYTES[self.dtype],
        }

    @property
    def label(self) -> str:
        """What it is, in words."""
        return record_label(self.slot.quantity, self.slot.layer, self.slot.granularity)

    @property
    def folder_name(self) -> str:
        """Name of the folder of its records, which ends with a digest of ``description``."""
        digest = json_digest(self.description)[:DIGEST_LENGTH]
        layer = f"layer-{self.slot.layer}" if self.slot.layer else ""
        return "-".join(part for part in (self.slot.quantity, layer, self.slot.granularity, digest) if part)

    def key(self, text: Example) -> bytes:
        """Compute the key of a text: a digest of the teacher's tokens, and of the positions or spans that are kept.

        Args:
            text: A text in the student's tokens, with ``teacher`` where that has others.
        """
        tokens = text.teacher or text
        digest = hashlib.sha256(len(tokens.input_ids).to_bytes(8, "little"))
        digest.update(tokens.input_ids.astype(np.int32).tobytes())
        if self.slot.quantity in _SUPERVISED_QUANTITIES:
            digest.update(supervised_positions(tokens).tobytes())
        elif self.slot.quantity in _SPAN_QUANTITIES:
            digest.update(np.ascontiguousarray(tokens.spans[self.slot.granularity], dtype=np.int32).tobytes())
        return digest.digest()

    def num_rows(self, text: Example) -> int:
        """Number of rows of a text, by its tokens and spans alone."""
        return _num_rows(self.slot.quantity, text.teacher or text, self.slot.granularity)

    def num_bytes(self, text: Example) -> int:
        """Bytes of a text's record on disk, with its key and checksum."""
        return self.num_rows(text) * self.row_bytes + RECORD_OVERHEAD


def top_tokens_kind(top_logprobs: int) -> RecordKind:
    """The kind of records of a teacher of which the likeliest tokens alone are known.

    Args:
        top_logprobs: Number of tokens per position.
    """
    return RecordKind(RecordSlot("top_tokens"), "int32", 2 * top_logprobs)


def supervised_positions(tokens: Example) -> NDArray[np.int64]:
    """Positions of a text whose next token is supervised, as ``Batch.position_N`` has them."""
    target = np.arange(max(tokens.prompt_length, 1), len(tokens.input_ids))
    if tokens.supervised_T is not None:
        target = target[tokens.supervised_T[target]]
    return target - 1


def _num_rows(quantity: RecordedQuantity, tokens: Example, granularity: str) -> int:
    if quantity in _SUPERVISED_QUANTITIES:
        return len(supervised_positions(tokens))
    if quantity == "attended_states":
        return len(tokens.input_ids)
    spans_K2 = tokens.spans[granularity]
    if quantity == "span_vectors":
        return len(spans_K2)
    if quantity in ("geometry", "change_geometry"):
        return len(spans_K2) * (len(spans_K2) - 1) // 2
    in_span_T = np.zeros(len(tokens.input_ids), dtype=bool)
    for start, end in spans_K2.tolist():
        in_span_T[start:end] = True
    return int(in_span_T.sum())


@dataclass(frozen=True)
class TeacherWidths:
    """Sizes and dtype of a teacher's states.

    Args:
        hidden: Width of the states of layers.
        final: Width of the final states, which the head is applied to.
        dtype: Dtype of the teacher: ``float32``, ``bfloat16`` or ``float16``.
    """

    hidden: int
    final: int
    dtype: str


@dataclass(frozen=True)
class RecordedRun:
    """The parts of a run that decide what is kept of its teacher.

    Args:
        widths: Sizes and dtype of the teacher's states.
        base_loss: The base loss.
        loss_layers: Pairs of student layer and teacher layer that the base loss reads.
        pairs: Key layers of the alignment; empty without it.
        terms: Alignment terms.
        importance: Importance estimator; None without alignment.
        pooling: Estimator that pools states to span vectors; None: ``importance`` does.
        has_shared_tokenizer: Whether both models read the same tokens.
        layer_states_in_8_bits: Whether states of layers are kept as 8-bit integers.
        top_logprobs: Number of likeliest tokens that are all that is known of the teacher; 0 where its states are.
    """

    widths: TeacherWidths
    base_loss: BaseLoss
    loss_layers: Sequence[tuple[int, int]] = ()
    pairs: Sequence[LayerPair] = ()
    terms: Sequence[PlacedTerm] = ()
    importance: ImportanceEstimator | None = None
    pooling: ImportanceEstimator | None = None
    has_shared_tokenizer: bool = True
    layer_states_in_8_bits: bool = False
    top_logprobs: int = 0

    def layer_below(self, pair: LayerPair) -> int:
        """The teacher's layer of the key layer of the same granularity below; 0 at the lowest."""
        lower = [other for other in self.pairs if other.granularity == pair.granularity and other < pair]
        return max(lower).teacher if lower else 0

    def kinds(self) -> tuple[RecordKind, ...]:
        """The kinds of records that training and validation read."""
        if self.top_logprobs:
            return (top_tokens_kind(self.top_logprobs),)
        return tuple(dict.fromkeys([*self._of_base_loss(), *self._of_alignment()]))

    def reported_kinds(self) -> tuple[RecordKind, ...]:
        """The kinds that the report's span similarities read besides, of a few texts."""
        slots = [RecordSlot("span_vectors", pair.teacher, pair.granularity, self._pooled) for pair in self.pairs]
        return tuple(dict.fromkeys(map(self._kind, slots)))

    @property
    def _pooled(self) -> str:
        estimator = self.pooling or self.importance
        return "" if estimator is None else estimator.fingerprint()

    def _of_base_loss(self) -> Iterator[RecordKind]:
        if self.base_loss.NEEDS_TEACHER:
            yield self._kind(RecordSlot("final_states"))
            for _, layer in self.loss_layers:
                yield self._kind(RecordSlot("attended_states", layer))

    def _of_alignment(self) -> Iterator[RecordKind]:
        pooling = self.pooling or self.importance
        if pooling is not None and pooling.BY_TEACHER and self.has_shared_tokenizer:
            # The student's states are pooled by the teacher's weights.
            for pair in self.pairs:
                yield self._kind(weight_slot(pooling, pair.teacher, pair.granularity))
        for placed in self.terms:
            for need in placed.term.teacher_needs(self.has_shared_tokenizer):
                for pair in placed.key_layers:
                    yield from self._of_need(need, pair)

    def _of_need(self, need: TeacherNeed, pair: LayerPair) -> Iterator[RecordKind]:
        assert self.importance is not None
        layer, granularity = pair.teacher, pair.granularity
        if need in ("span_weights", "token_weights"):
            yield self._kind(weight_slot(self.importance, layer, granularity))
        elif need == "geometry":
            yield self._kind(RecordSlot("geometry", layer, granularity, self._pooled))
        elif need == "change_geometry" and (below := self.layer_below(pair)):
            yield self._kind(RecordSlot("change_geometry", layer, granularity, self._pooled, below))
        elif need == "span_vectors":
            yield self._kind(RecordSlot("span_vectors", layer, granularity, self._pooled))
        elif need == "span_tokens":
            yield self._kind(RecordSlot("span_token_states", layer, granularity))
        elif need == "states":
            yield self._kind(RecordSlot("attended_states", layer))

    def _kind(self, slot: RecordSlot) -> RecordKind:
        dtype = self.widths.dtype
        if slot.quantity == "final_states":
            return RecordKind(slot, dtype, self.widths.final)
        if slot.quantity == "token_weights":
            return RecordKind(slot, "float32")
        if slot.quantity in ("geometry", "change_geometry"):
            # Cosines of 16-bit states are no more exact than float16, which is finer than bfloat16 below 1.
            return RecordKind(slot, "float32" if dtype == "float32" else "float16")
        return RecordKind(slot, dtype, self.widths.hidden, self.layer_states_in_8_bits)
