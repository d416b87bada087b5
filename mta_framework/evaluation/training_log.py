"""Reads quantities from the training log of ``transformers.Trainer``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mta_framework.types.log_entries import RESPONSE_HEALTH, SHARE_BY_STUDENT

Log = Sequence[Mapping[str, Any]]
Points = tuple[list[int], list[float]]

# Numbers of a log entry that are no terms of the loss; all other numbers beside a loss are.
NO_TERMS = frozenset({"loss", "learning_rate", "grad_norm", "epoch", "step", "total_flos", "runtime"})
EVAL = "eval_"
"""Prefix of the name of a quantity on the validation set."""


def loss_terms(log: Log) -> list[str]:
    """Names of the loss terms in the order of their first occurrence, those of validation alone last.

    None are named where a single term is the loss itself.
    """
    trained = [name for entry in log if "loss" in entry for name in entry]
    names = [
        name for name in dict.fromkeys(trained + validated_names(log)) if name not in NO_TERMS | {*RESPONSE_HEALTH}
    ]
    return names if len(names) > 1 else []


def validated_names(log: Log) -> list[str]:
    """Names of what was measured on the validation set, without ``eval_``, in the order of their first occurrence."""
    return list(dict.fromkeys(name.removeprefix(EVAL) for entry in log for name in entry if name.startswith(EVAL)))


def points(log: Log, name: str) -> Points:
    """Steps and values of one quantity; values that are not finite are left out."""
    pairs = [
        (int(entry["step"]), float(entry[name]))
        for entry in log
        if "step" in entry and isinstance(entry.get(name), (int, float)) and math.isfinite(entry[name])
    ]
    return [step for step, _ in pairs], [value for _, value in pairs]


def share_by_student(log: Log) -> float | None:
    """Mean share of training texts whose response the student wrote; None where it was not logged."""
    shares = [float(entry[SHARE_BY_STUDENT]) for entry in log if SHARE_BY_STUDENT in entry]
    return sum(shares) / len(shares) if shares else None
