"""Counts of a global batch over all processes, by which the sums of loss terms are divided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mta_framework.types import Batch, MixedBatch

Reduce = Callable[[Tensor], Tensor]
"""A function that sums a tensor over all processes."""


@dataclass(frozen=True)
class GlobalCounts:
    """Counts of a global batch, or of the validation set, over all processes.

    Args:
        all_texts: Counts of all texts by unit.
        by_teacher: Name of each of several teachers -> counts of its texts alone by unit, 0 where it has none; empty
            where there is one teacher, or none.
    """

    all_texts: Mapping[str, int]
    by_teacher: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, batches: Iterable[Batch | MixedBatch], reduce: Reduce) -> GlobalCounts:
        """Sum the counts of micro-batches.

        Args:
            batches: The micro-batches of this process.
            reduce: Sums a tensor over all processes.
        """
        totals: Counter[tuple[str, str]] = Counter()
        for batch in batches:
            parts = batch.counts_by_teacher if isinstance(batch, MixedBatch) else {"": batch.counts}
            for name, counts in parts.items():
                totals.update({(name, unit): count for unit, count in counts.items()})
        keys = sorted(totals)  # in one order on all processes
        summed = reduce(torch.tensor([totals[key] for key in keys], dtype=torch.float64)).tolist()
        all_texts, by_teacher = Counter[str](), dict[str, dict[str, int]]()
        for (name, unit), count in zip(keys, map(int, summed), strict=True):
            all_texts[unit] += count
            if name:
                by_teacher.setdefault(name, {})[unit] = count
        return cls(dict(all_texts), by_teacher)
