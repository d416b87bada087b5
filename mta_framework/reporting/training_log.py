"""What the training log has of which quantity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mta_framework.types import SHARE_BY_STUDENT

Log = Sequence[Mapping[str, Any]]
Points = tuple[list[int], list[float]]

# What stands beside the loss without being one of its terms, as every other number of an entry with a loss is.
NO_TERMS = frozenset({"loss", "learning_rate", "grad_norm", "epoch", "step", "total_flos", "runtime"})
_EVAL = "eval_"


def terms(log: Log) -> list[str]:
    """Names of the terms in a training log, those of validation alone last, in the order of their first occurrence."""
    trained = [name for entry in log if "loss" in entry for name in entry]
    validated = [name.removeprefix(_EVAL) for entry in log for name in entry if name.startswith(_EVAL)]
    return [name for name in dict.fromkeys(trained + validated) if name not in NO_TERMS]


def loss_terms(log: Log) -> list[str]:
    """The terms that are shown beside the loss: none where a single one is the loss itself."""
    names = terms(log)
    return names if len(names) > 1 else []


def points(log: Log, name: str) -> Points:
    """Steps and values of one quantity; values that are no finite numbers are left out."""
    found = [
        (int(entry["step"]), float(entry[name]))
        for entry in log
        if "step" in entry and isinstance(entry.get(name), (int, float)) and math.isfinite(entry[name])
    ]
    return [step for step, _ in found], [value for _, value in found]


def validation_points(log: Log, name: str) -> Points:
    """The same of the validation set."""
    return points(log, f"{_EVAL}{name}")


def share_by_student(log: Log) -> float | None:
    """The mean share of texts that the student wrote; None where it wrote none."""
    found = [float(entry[SHARE_BY_STUDENT]) for entry in log if SHARE_BY_STUDENT in entry]
    return sum(found) / len(found) if found else None
