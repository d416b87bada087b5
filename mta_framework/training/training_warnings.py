"""Warnings in words of what a training's log shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mta_framework.training.response_health import collapse_warnings


def training_warnings(history: Sequence[Mapping[str, Any]], alignment_terms: Sequence[str]) -> list[str]:
    """Describe collapsed responses of the student, and alignment terms that have added nothing.

    Args:
        history: Log entries of a training.
        alignment_terms: Names of the alignment terms.

    Returns:
        A sentence or two each, the same ones at every later entry as long as they are true.
    """
    return [*collapse_warnings(history), *_idle_terms(history, alignment_terms)]


def _idle_terms(history: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Iterator[str]:
    for name in names:
        values = [entry[name] for entry in history if name in entry]
        if values and not any(values):
            why = "no text has spans that it compares, or the importance estimator gives all their tokens the weight 0"
            yield f"The alignment term {name!r} has been 0 in every step so far and adds nothing: {why}."
