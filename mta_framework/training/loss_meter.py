"""Averages the loss terms over steps for the log, and stops a run at the first NaN."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mta_framework.errors import RunError
from mta_framework.types import LossTerms

Reduce = Callable[[Tensor], Tensor]
"""A function that sums a tensor over all processes."""

_TOTAL = "loss"


class LossMeter:
    """Accumulates loss terms by name: over the micro-batches of a step, then over steps until they are logged.

    Values stay on the device until the end of the step: one transfer per optimiser step. Terms of the same name (one
    per key layer) are averaged by their weights, or evenly where these are all 0, so that the logged ``dsa`` does not
    contain its lambda. ``loss`` is the weighted total.
    """

    def __init__(self) -> None:
        self._step: dict[str, Tensor] = {}
        self._totals: dict[str, float] = defaultdict(float)
        self._steps = 0

    def update(self, terms: LossTerms, counts: Mapping[str, int]) -> None:
        """Add the terms of one micro-batch to the current step.

        Args:
            terms: Loss terms of the micro-batch.
            counts: Counts of the global batch by unit.
        """
        weights: dict[str, list[float]] = defaultdict(list)
        for term in terms:
            weights[term.name].append(term.weight)
        for term in terms:
            value = term.sum.detach() / max(counts[term.unit], 1)
            total = sum(weights[term.name])
            self._add(term.name, value * (term.weight / total if total else 1 / len(weights[term.name])))
            self._add(_TOTAL, value * term.weight)

    def _add(self, name: str, value: Tensor) -> None:
        self._step[name] = self._step[name] + value if name in self._step else value

    def reduce(self, where: str, reduce: Reduce) -> dict[str, float]:
        """End the current step: sum its terms over processes and check that they are finite.

        Args:
            where: Name of the step in the message.
            reduce: Sums a tensor over all processes.

        Returns:
            The value of each term over the global batch by name, and the weighted total as ``loss``.

        Raises:
            RunError: A term is NaN or infinite; the message names ``where`` and the term.
        """
        names = list(self._step)
        reduced = reduce(torch.stack([self._step[name] for name in names])).tolist()
        values = dict(zip(names, reduced, strict=True))
        faults = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
        if faults:
            of_terms = [fault for fault in faults if not fault.startswith(f"{_TOTAL} ")]
            raise RunError(f"{where}: {', '.join(of_terms or faults)}. The run stops; its last checkpoint is kept.")
        for name, value in values.items():
            self._totals[name] += value
        self._step = {}
        self._steps += 1
        return values

    def pop(self) -> dict[str, float]:
        """Return the mean of ``loss`` and of every term over the steps since the last call, and start over."""
        steps = max(self._steps, 1)
        means = {name: total / steps for name, total in self._totals.items()}
        self._totals.clear()
        self._steps = 0
        return means
