"""Data loading: global batches for training, and each process's micro-batches for training and validation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.data import DataLoader

from mta_framework.data.batches import GroupedSampler, collate
from mta_framework.errors import Fault
from mta_framework.types import Batch, Example


class Collator:
    """Turns examples into a ``Batch``.

    Args:
        pad_token_id: Token used for padding, which is masked.
        granularities: Granularities of the spans that a batch holds; empty without alignment.
        teacher_pad_token_id: Token used for padding in the teacher's tokens, where its tokenizer differs.
    """

    def __init__(self, pad_token_id: int, granularities: Sequence[str], teacher_pad_token_id: int = 0):
        self._pad_token_id = pad_token_id
        self._granularities = tuple(granularities)
        self._teacher_pad_token_id = teacher_pad_token_id

    def __call__(self, examples: Sequence[Example]) -> Batch:
        return collate(examples, self._pad_token_id, self._granularities, self._teacher_pad_token_id)


def training_loader(examples: Sequence[Example], sampler: GroupedSampler) -> DataLoader[list[Example]]:
    """Load the examples of an epoch, the same on every process.

    It yields lists of ``micro_batch_size * world_size`` examples; consecutive ones form a global batch. The loader has
    a random generator of its own: if iterating advanced the global one, a resumed run would differ from a straight one.

    Args:
        examples: Training set.
        sampler: Order of the epoch.
    """
    return DataLoader(
        examples,  # type: ignore[arg-type]
        batch_sampler=sampler,  # type: ignore[arg-type]
        collate_fn=list,
        generator=torch.Generator(),
    )


def micro_batches(batch: Sequence[Example], count: int, rank: int, world_size: int) -> list[Sequence[Example]]:
    """Cut a global batch into micro-batches and return those of one process.

    Args:
        batch: Global batch, over all micro-batches and processes.
        count: Number of micro-batches of each process.
        rank: Index of the process; micro-batch i goes to process ``i % world_size``.
        world_size: Number of processes.
    """
    size = len(batch) // (count * world_size)
    parts = [batch[first : first + size] for first in range(0, len(batch), size)]
    return parts[rank::world_size]


def validation_fault(rows: int, world_size: int) -> Fault | None:
    """Fault of a validation set with fewer rows than processes, or None: every process must have a row."""
    if rows >= world_size:
        return None
    problem = f"has fewer rows than there are processes (got {rows} for {world_size})"
    return Fault("data.validation", problem, "at least one row per process", "Add rows or set it to null.")


def validation_batches(
    examples: Sequence[Example], micro_batch_size: int, collator: Collator, rank: int, world_size: int
) -> list[Batch]:
    """Make one process's batches of a validation set, longest texts first, each text once over all processes.

    Args:
        examples: Validation set, at least ``world_size`` examples.
        micro_batch_size: Most texts in a batch.
        collator: Turns examples into batches.
        rank: Index of the process.
        world_size: Number of processes.
    """
    size = min(micro_batch_size, len(examples) // world_size)
    order = sorted(range(len(examples)), key=lambda index: -len(examples[index].input_ids))
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    return [collator([examples[index] for index in part]) for part in parts[rank::world_size]]
