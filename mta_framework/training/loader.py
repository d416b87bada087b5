"""Micro-batches for training and validation, cut so that every process knows its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.data import DataLoader

from mta_framework.data.batches import GroupedSampler, collate
from mta_framework.errors import Fault
from mta_framework.types import Batch, Example


class Collator:
    """Examples -> Batch."""

    def __init__(self, pad_token_id: int, granularities: Sequence[str], teacher_pad_token_id: int = 0):
        self._pad_token_id = pad_token_id
        self._granularities = tuple(granularities)
        self._teacher_pad_token_id = teacher_pad_token_id

    def __call__(self, examples: Sequence[Example]) -> Batch:
        return collate(examples, self._pad_token_id, self._granularities, self._teacher_pad_token_id)


def training_loader(examples: Sequence[Example], sampler: GroupedSampler) -> DataLoader[list[Example]]:
    """The texts of an epoch in the sampler's rounds, the same on every process.

    The loader has a random generator of its own: iterating must not move the global one, or a resumed run would differ
    from a straight one.
    """
    return DataLoader(
        examples,  # type: ignore[arg-type]
        batch_sampler=sampler,  # type: ignore[arg-type]
        collate_fn=list,
        generator=torch.Generator(),
    )


def micro_batches(batch: Sequence[Example], count: int, rank: int, world_size: int) -> list[Sequence[Example]]:
    """One process's share of a global batch.

    Args:
        batch: Over all micro-batches and processes.
        count: Micro-batches of each process.
        rank: This one; cut i goes to process ``i % world_size``.
        world_size: Number of processes.
    """
    size = len(batch) // (count * world_size)
    cuts = [batch[first : first + size] for first in range(0, len(batch), size)]
    return cuts[rank::world_size]


def validation_fault(rows: int, world_size: int) -> Fault | None:
    """Every process needs a share: the loss terms are summed over all of them."""
    if rows >= world_size:
        return None
    problem = f"has fewer rows than there are processes (got {rows} for {world_size})"
    return Fault("data.validation", problem, "at least one row each", "Add rows or set it to null.")


def validation_batches(
    examples: Sequence[Example], micro_batch_size: int, collator: Collator, rank: int, world_size: int
) -> list[Batch]:
    """This process's share of all examples, longest first, each once; see ``validation_fault``."""
    size = min(micro_batch_size, len(examples) // world_size)
    order = sorted(range(len(examples)), key=lambda index: -len(examples[index].input_ids))
    cuts = [order[start : start + size] for start in range(0, len(order), size)]
    return [collator([examples[index] for index in cut]) for cut in cuts[rank::world_size]]
