"""A comparison as lines for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from mta_framework.comparison import tables
from mta_framework.comparison.comparison import Comparison
from mta_framework.comparison.notes import DAGGER
from mta_framework.evaluation.report import MetricFacts

_GAP = "  "


def lines(comparison: Comparison, width: int = 100) -> Iterator[str]:
    """Scores with their intervals below them, differences, and what has to be said about them.

    Args:
        comparison: What to show.
        width: At which notes are wrapped; tables are as wide as they are.
    """
    for metric in comparison.metrics:
        yield from (tables.heading(metric), *_aligned(_scores(comparison, metric)), "")
        found = tables.contrast_rows(comparison, metric)
        if found:
            yield from (*_aligned([tables.CONTRASTS, *found], left=3), "")
    if comparison.verdicts:
        yield tables.verdict_heading(comparison)
        yield from (*_aligned([tables.VERDICTS, *tables.verdict_rows(comparison)], left=3), "")
    for note in comparison.notes:
        yield from textwrap.wrap(note, width)


def _scores(comparison: Comparison, metric: MetricFacts) -> list[list[str]]:
    rows = [["", *map(tables.set_name, comparison.columns)]]
    for row in comparison.rows:
        cells = tables.shown(comparison, row, metric)
        rows.append([row.label, *(f"{cell.score}{DAGGER if cell.significant else ' '}" for cell in cells)])
        if any(cell.interval for cell in cells):
            rows.append(["", *(f"{cell.interval} " for cell in cells)])
    return rows


def _aligned(rows: Sequence[Sequence[str]], left: int = 1) -> Iterator[str]:
    """The first ``left`` columns to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield f"{_GAP}{_GAP.join(cells)}".rstrip()
