"""Keeps the value of every loss term: for the log, and to stop a run at the first NaN."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mta_framework.errors import RunError
from mta_framework.types import LossTerms

Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over all processes."""

_TOTAL = "loss"


class LossMeter:
    """Values of loss terms by name, kept on the device: one transfer per optimiser step.

    Terms of one name (one per key layer) are averaged by their weights, so what is logged as ``dsa`` does not contain
    lambda; where their weights are all 0, evenly. ``loss`` is the weighted total.
    """

    def __init__(self) -> None:
        self._open: dict[str, Tensor] = {}
        self._closed: dict[str, float] = defaultdict(float)
        self._steps = 0

    def update(self, terms: LossTerms, counts: Mapping[str, int]) -> None:
        """Book one micro-batch.

        Args:
            terms: Its sums.
            counts: Unit -> count over the whole global batch.
        """
        weights: dict[str, list[float]] = defaultdict(list)
        for term in terms:
            weights[term.name].append(term.weight)
        for term in terms:
            value = term.sum.detach() / max(counts[term.unit], 1)
            total = sum(weights[term.name])
            self._book(term.name, value * (term.weight / total if total else 1 / len(weights[term.name])))
            self._book(_TOTAL, value * term.weight)

    def _book(self, name: str, value: Tensor) -> None:
        self._open[name] = self._open[name] + value if name in self._open else value

    def reduce(self, where: str, reduce: Reduce) -> dict[str, float]:
        """All micro-batches of a global batch are booked.

        Returns:
            Their values by name, and the total as ``loss``.

        Raises:
            RunError: A term is NaN or infinite; the message names ``where`` and the term.
        """
        names = list(self._open)
        values = reduce(torch.stack([self._open[name] for name in names])).tolist()
        found = dict(zip(names, values, strict=True))
        faulty = [f"{name} is {value}" for name, value in found.items() if not math.isfinite(value)]
        if faulty:
            told = [fault for fault in faulty if not fault.startswith(f"{_TOTAL} ")] or faulty
            raise RunError(f"{where}: {', '.join(told)}. The run stops; its last checkpoint is kept.")
        for name, value in found.items():
            self._closed[name] += value
        self._open = {}
        self._steps += 1
        return found

    def pop(self) -> dict[str, float]:
        """``loss`` and the mean of every term over the steps since the last call."""
        steps = max(self._steps, 1)
        means = {name: total / steps for name, total in self._closed.items()}
        self._closed.clear()
        self._steps = 0
        return means
