"""Reads quantities from the training log of ``transformers.Trainer``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mta_framework.types.log_entries import EVAL, SHARE_BY_STUDENT, is_reserved

Log = Sequence[Mapping[str, Any]]
Points = tuple[list[int], list[float]]


def loss_terms(log: Log) -> list[str]:
    """Names of the loss terms in the order of their first occurrence; none where a single term is the loss itself."""
    names = [name for name in _trained_names(log) if not is_reserved(name)]
    return names if len(names) > 1 else []


def validated_alone(log: Log) -> list[str]:
    """Names of what is measured on the validation set and not in training: cross-entropy, a metric of answers."""
    trained = _trained_names(log)
    return [name for name in validated_names(log) if name not in trained]


def validated_names(log: Log) -> list[str]:
    """Names of what was measured on the validation set, without ``eval_``, in the order of their first occurrence."""
    return list(dict.fromkeys(name.removeprefix(EVAL) for entry in log for name in entry if name.startswith(EVAL)))


def _trained_names(log: Log) -> dict[str, None]:
    return dict.fromkeys(name for entry in log if "loss" in entry for name in entry)


def points(log: Log, name: str) -> Points:
    """Steps and values of one quantity; values that are not finite are left out."""
    pairs = [
        (int(entry["step"]), float(entry[name]))
        for entry in log
        if "step" in entry and isinstance(entry.get(name), (int, float)) and math.isfinite(entry[name])
    ]
    return [step for step, _ in pairs], [value for _, value in pairs]


def validation_points(log: Log, name: str) -> Points:
    """The same of a quantity on the validation set, named without ``eval_``."""
    return points(log, EVAL + name)


def share_by_student(log: Log) -> float | None:
    """Mean share of training texts whose response the student wrote; None where it was not logged."""
    shares = [float(entry[SHARE_BY_STUDENT]) for entry in log if SHARE_BY_STUDENT in entry]
    return sum(shares) / len(shares) if shares else None
