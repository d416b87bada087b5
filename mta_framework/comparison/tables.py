"""The tables of a comparison as text, before any markup."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mta_framework.comparison.notes import BOLD
from mta_framework.comparison.results import Comparison, Interval, Place, Row
from mta_framework.evaluation.report import MetricFacts
from mta_framework.evaluation.tables import figure

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Shown:
    """A cell of the table of scores.

    Args:
        score: ``25.65 ± 0.21``.
        interval: ``[24.90, 26.38]``, or empty.
        best: Whether it is the best of the rows that are compared with each other.
        significant: Whether it differs from its baseline.
    """

    score: str
    interval: str
    best: bool
    significant: bool


def heading(metric: MetricFacts) -> str:
    """``rouge_l (higher is better)``."""
    return f"{metric.label} ({'higher' if metric.higher_is_better else 'lower'} is better)"


def set_name(name: str | None) -> str:
    """The head of a column."""
    return "average" if name is None else name


def shown(comparison: Comparison, row: Row, metric: MetricFacts) -> list[Shown]:
    """The cells of a row, one for each column."""
    cells = []
    for name in comparison.columns:
        place = (metric.label, name)
        cell, contrast = row.cells[place], comparison.contrast(place, row.label)
        deviation = "" if cell.deviation is None else f" ± {figure(cell.deviation)}"
        best = row.label in best_rows(comparison, place, metric.higher_is_better)
        significant = contrast is not None and contrast.significant
        cells.append(Shown(f"{_minus(figure(cell.mean))}{deviation}", _interval(cell.interval), best, significant))
    return cells


def best_rows(comparison: Comparison, place: Place, higher_is_better: bool) -> set[str]:
    """Labels of the rows that are best of those that are compared with each other."""
    best = set()
    for _, rows in families(comparison):
        if len(rows) > 1:
            means = [row.cells[place].mean for row in rows]
            top = max(means) if higher_is_better else min(means)
            best |= {row.label for row, mean in zip(rows, means, strict=True) if mean == top}
    return best


def all_notes(comparison: Comparison) -> list[str]:
    """What stands under every table in which the best is bold, where it is."""
    several = any(len(rows) > 1 for _, rows in families(comparison))
    return [*comparison.notes, *([BOLD] if several else [])]


def families(comparison: Comparison) -> list[tuple[str, list[Row]]]:
    """Rows that are compared with each other, below their baseline, whose label comes first."""
    found: dict[str, list[Row]] = {}
    for row in comparison.rows:
        root = row
        seen = {row.label}
        while root.baseline is not None and root.baseline not in seen:
            seen.add(root.baseline)
            root = next(entry for entry in comparison.rows if entry.label == root.baseline)
        found.setdefault(root.label, []).append(row)
    return list(found.items())


_CONTRASTS = ("row", "compared with", "set", "difference", "95 % interval", "p", "p (Holm)", "wins/ties/losses")
_SEEDS = "p (seeds)"
VERDICTS = ("row", "compared with", "set", "preferred", "95 % interval", "p", "wins/ties/losses")


def contrast_table(comparison: Comparison, metric: MetricFacts) -> list[list[str]]:
    """The head, and a row for each contrast of a metric; empty where there is none."""
    rows = [
        [
            entry.other,
            entry.baseline,
            set_name(entry.set),
            _minus(figure(entry.difference, "+")),
            _interval(entry.interval, functools.partial(figure, sign="+")),
            probability(entry.p),
            probability(entry.p_holm),
            f"{entry.wins} / {entry.ties} / {entry.losses}",
            "" if entry.p_seeds is None else probability(entry.p_seeds),
        ]
        for entry in comparison.contrasts
        if entry.metric == metric.label
    ]
    table = [[*_CONTRASTS, _SEEDS], *rows] if rows else []
    return table if any(row[-1] for row in rows) else [row[:-1] for row in table]


def verdict_rows(comparison: Comparison) -> list[list[str]]:
    """One for each verdict, as ``VERDICTS`` heads them."""
    return [
        [
            entry.other,
            entry.baseline,
            set_name(entry.set),
            f"{entry.share:.1%}",
            _interval(entry.interval, "{:.1%}".format),
            probability(entry.p),
            f"{entry.wins} / {entry.ties} / {entry.losses}",
        ]
        for entry in comparison.verdicts
    ]


def verdict_heading(comparison: Comparison) -> str:
    """What the table of verdicts is called."""
    names: Sequence[str] = list(dict.fromkeys(entry.metric for entry in comparison.verdicts))
    return f"{', '.join(names)}: how often the row is preferred to what it is compared with"


def probability(p: float) -> str:
    """``0.032``, or ``< 0.001``."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _interval(ends: Interval | None, shown: Callable[[float], str] = figure) -> str:
    return "" if ends is None else _minus(f"[{shown(ends[0])}, {shown(ends[1])}]")


def _minus(number: str) -> str:
    return number.replace("-", MINUS)
