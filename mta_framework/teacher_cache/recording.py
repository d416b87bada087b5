"""Records from the states of a live teacher, and tensors for the losses from records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mta_framework.alignment.importance import CheckedImportance
from mta_framework.alignment.key_layer import layer_sides
from mta_framework.alignment.model_layer import LiveTeacherLayer
from mta_framework.alignment.pairwise_cosines import VectorGeometry
from mta_framework.errors import RunError
from mta_framework.teacher_cache.kinds import RecordedRun, RecordKind
from mta_framework.types import Batch, Example, LayerPair, RecordSlot, States

_LARGEST = 127
"""Largest 8-bit integer that is used, on both sides of 0."""


class Recorder:
    """Makes the records of texts from the teacher's states on them.

    Args:
        run: What is kept.
    """

    def __init__(self, run: RecordedRun):
        self._run = run
        self._estimators: dict[str, CheckedImportance] = {}
        for estimator in (run.importance, run.pooling):
            if estimator is not None:
                self._estimators.setdefault(estimator.fingerprint(), CheckedImportance(estimator))

    @property
    def layers(self) -> frozenset[int]:
        """1-based layers of the teacher that are read."""
        return frozenset([*(pair.teacher for pair in self._run.pairs), *(layer for _, layer in self._run.loss_layers)])

    @torch.no_grad()
    def records(
        self, states: States, batch: Batch, texts: Sequence[Example], kinds: Sequence[RecordKind]
    ) -> list[list[bytes]]:
        """Make the records of a batch.

        Args:
            states: The live teacher's states on the batch.
            batch: Texts with the spans of every granularity.
            texts: The texts of the batch, in its order.
            kinds: The kinds of records.

        Returns:
            For each text, its record of each kind.

        Raises:
            RunError: The importance estimator failed, or gave unsound weights.
        """
        sides = self._sides(states, batch)
        columns = []
        for kind in kinds:
            rows = self._rows(kind.slot, states, batch, sides)
            columns.append([_packed(part, kind) for part in rows.split([kind.num_rows(text) for text in texts])])
        if faults := [fault for checked in self._estimators.values() if (fault := checked.fault())]:
            raise RunError(faults[0])
        return [list(row) for row in zip(*columns, strict=True)]

    def _sides(self, states: States, batch: Batch) -> dict[tuple[LayerPair, str], LiveTeacherLayer]:
        """The teacher's side of each key layer by the fingerprint of the estimator whose weights it has."""
        sides = {}
        for fingerprint, checked in self._estimators.items():
            # The student's side is lazy and never read.
            for side in layer_sides(tuple(self._run.pairs), states, states, batch, checked, checked):
                sides[side.pair, fingerprint] = side.teacher
        return sides

    def _rows(
        self, slot: RecordSlot, states: States, batch: Batch, sides: Mapping[tuple[LayerPair, str], LiveTeacherLayer]
    ) -> Tensor:
        tokens = batch.teacher or batch
        if slot.quantity == "final_states":
            return states.final_BTD.flatten(0, 1).index_select(0, tokens.position_N)
        if slot.quantity == "attended_states":
            return states.layers[slot.layer].flatten(0, 1).index_select(0, tokens.attended_A)
        if slot.quantity == "span_token_states":
            return states.layers[slot.layer].flatten(0, 1).index_select(0, tokens.spans[slot.granularity].token_U)
        pair = next(
            pair
            for pair in self._run.pairs
            if pair.granularity == slot.granularity
            and slot.layer in (0, pair.teacher)
            and slot.below in (0, self._run.layer_below(pair))
        )
        side = sides[pair, slot.estimator]
        if slot.quantity == "span_vectors":
            return side.span_vector_SD
        if slot.quantity == "token_weights":
            return side.normalised_weight_U
        geometry = side.geometry if slot.quantity == "geometry" else side.change_geometry
        assert isinstance(geometry, VectorGeometry)  # that of a live teacher
        return geometry.upper_triangles(tokens.spans[slot.granularity].spans_per_text)


def _packed(rows: Tensor, kind: RecordKind) -> bytes:
    """A record on disk."""
    rows = rows.reshape(-1, kind.width).cpu()
    if not kind.is_8_bit:
        return _as_bytes(rows.to(getattr(torch, kind.dtype))).tobytes()
    values = rows.float()
    scale_N1 = values.abs().amax(1, keepdim=True) / _LARGEST if len(rows) else values[:, :1]
    quantised = (values / scale_N1.clamp_min(torch.finfo(torch.float32).tiny)).round().to(torch.int8)
    return np.concatenate([_as_bytes(scale_N1), _as_bytes(quantised)], axis=1).tobytes()


def _as_bytes(rows: Tensor) -> NDArray[np.uint8]:
    return rows.contiguous().view(torch.uint8).numpy()


def unpacked(records: Sequence[memoryview], kind: RecordKind) -> Tensor:
    """Put records one after another into a tensor, (rows, width); (rows,) where the width is 1."""
    joined = torch.empty(sum(map(len, records)), dtype=torch.uint8)
    np.concatenate([np.frombuffer(record, dtype=np.uint8) for record in records], out=joined.numpy())
    dtype = getattr(torch, kind.dtype)
    if kind.is_8_bit:
        rows = joined.view(-1, kind.row_bytes)
        scale_N1, values = rows[:, : -kind.width].contiguous().view(torch.float32), rows[:, -kind.width :]
        return (values.view(torch.int8) * scale_N1).to(dtype)
    rows = joined.view(dtype)
    return rows if kind.width == 1 else rows.view(-1, kind.width)
