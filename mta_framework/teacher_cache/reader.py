"""Reads the records of a batch's texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from mta_framework.teacher_cache.kinds import RecordKind
from mta_framework.teacher_cache.recording import unpacked
from mta_framework.teacher_cache.store import RecordStore
from mta_framework.types import Example, RecordSlot


class RecordReader:
    """Reads what is kept of the teacher on the texts of a batch.

    Args:
        stores: Kinds of records that the run reads, with their stores.
    """

    def __init__(self, stores: Mapping[RecordKind, RecordStore]):
        self._stores = stores
        self._keys: dict[int, tuple[Example, list[bytes]]] = {}

    def __call__(self, texts: Sequence[Example]) -> dict[RecordSlot, Tensor] | None:
        """Read the records of some texts.

        Returns:
            Tensors on the CPU as ``RecordedQuantity`` says, the rows of one text after another; None where a record of
            any text is missing or damaged, so that the teacher has to be run.
        """
        keys = [self._keys_of(text) for text in texts]
        tensors: dict[RecordSlot, Tensor] = {}
        for position, (kind, store) in enumerate(self._stores.items()):
            records = []
            for of_text in keys:
                record = store.get(of_text[position])
                if record is None:
                    return None
                records.append(record)
            tensors[kind.slot] = unpacked(records, kind)
            if kind.slot.quantity in ("geometry", "change_geometry"):
                tensors[kind.slot] = torch.cat([tensors[kind.slot], tensors[kind.slot].new_zeros(1)])
                slot = RecordSlot("pair_indices", granularity=kind.slot.granularity)
                tensors.setdefault(slot, _pair_indices(texts, kind.slot.granularity))
        for text, of_text in zip(texts, keys, strict=True):
            self._keys.setdefault(id(text), (text, of_text))
        return tensors

    def _keys_of(self, text: Example) -> list[bytes]:
        known = self._keys.get(id(text))
        return known[1] if known is not None else [kind.key(text) for kind in self._stores]


def _pair_indices(texts: Sequence[Example], granularity: str) -> Tensor:
    """For each span: offset of its text among all pairs, its index in its text, number of spans of that."""
    size_B = [len((text.teacher or text).spans[granularity]) for text in texts]
    offset_B = accumulate((size * (size - 1) // 2 for size in size_B), initial=0)
    columns = [
        np.stack([np.full(size, offset), np.arange(size), np.full(size, size)])
        for size, offset in zip(size_B, offset_B, strict=False)
    ]
    return torch.from_numpy(np.concatenate(columns, axis=1).astype(np.int64))
