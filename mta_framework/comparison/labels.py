"""What runs are called in tables, by their specs."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mta_framework.comparison.finished_runs import Run

_AS_PRINTED = {
    "sft": "SFT",
    "kl": "KL",
    "jsd": "JSD",
    "fdd": "FDD",
    "distillm": "DistiLLM",
    "distillm2": "DistiLLM-2",
}
"""Base losses as papers print them; others are called as in the spec."""


def label(run: Run) -> str:
    """``KL``, ``KL + MTA``, ``KL + DSA`` or ``KL + Hid``; the name of what trained nothing."""
    spec = run.report.spec
    if "base_loss" not in spec or not spec.get("training"):
        return run.name
    name = spec["base_loss"]["name"]
    return " + ".join([_AS_PRINTED.get(name, name), *_aligned(spec.get("alignment"))])


def told_apart(proposed: Sequence[str], runs: Sequence[Sequence[Run]]) -> list[str]:
    """Labels of which no two are the same: those that clash become the names of the runs, or their folders.

    Args:
        proposed: One label for each row.
        runs: The runs of each row.
    """
    labels = list(proposed)
    for other in (_shared_name, _folder):
        counts = Counter(labels)
        labels = [one if counts[one] == 1 else other(row) for one, row in zip(labels, runs, strict=True)]
    return labels


def _aligned(alignment: Mapping[str, Any] | None) -> list[str]:
    if alignment is None:
        return []
    dsa, hid = alignment.get("lambda_dsa"), alignment.get("lambda_hid")
    return ["DSA" if not hid else "Hid" if not dsa else "MTA"]


def _shared_name(runs: Sequence[Run]) -> str:
    """The name of a single run, or how the names of several begin."""
    names = [run.name for run in runs]
    if len(names) == 1:
        return names[0]
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in alike).rstrip("-_. ") or names[0]


def _folder(runs: Sequence[Run]) -> str:
    return str(runs[0].folder)
