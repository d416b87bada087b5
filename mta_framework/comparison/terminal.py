"""A comparison as lines for a terminal."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Sequence

from mta_framework.comparison import tables
from mta_framework.comparison.notes import DAGGER
from mta_framework.comparison.results import Comparison
from mta_framework.evaluation.report import MetricFacts

_GAP = "  "


def lines(comparison: Comparison, width: int = 100) -> Iterator[str]:
    """Scores with their intervals below them, differences, and what has to be said about them.

    Args:
        comparison: What to show.
        width: At which notes are wrapped, and columns that find no room go below the others.
    """
    for metric in comparison.metrics:
        yield from (tables.heading(metric), *_fitting(_scores(comparison, metric), width))
        found = tables.contrast_table(comparison, metric)
        if found:
            yield from _compared(found[0], found[1:], width)
    if comparison.verdicts:
        yield tables.verdict_heading(comparison)
        yield from _compared(tables.VERDICTS, tables.verdict_rows(comparison), width)
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


def _compared(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """A table of which the first two columns stand above the rows that they belong to."""
    lines: list[Sequence[str]] = []
    for (row, baseline), found in itertools.groupby(rows, key=lambda row: (row[0], row[1])):
        lines.append([f"{row} {head[1]} {baseline}"])
        lines += [entry[2:] for entry in found]
    yield from _fitting([head[2:], *lines], width)


def _fitting(rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """The first column to the left, the others to the right; rows of one cell run through. An empty line at the end."""
    whole = [row for row in rows if len(row) > 1]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    for columns in _blocks(widths, width):
        for row in rows:
            cells = [row[number].rjust(widths[number]) for number in columns if len(row) > 1]
            yield f"{_GAP}{_GAP.join([row[0].ljust(widths[0]), *cells])}".rstrip()
        yield ""


def _blocks(widths: Sequence[int], width: int) -> list[list[int]]:
    """Which columns, besides the first, stand side by side."""
    blocks: list[list[int]] = [[]]
    for number in range(1, len(widths)):
        taken = sum(len(_GAP) + widths[column] for column in [0, *blocks[-1], number])
        if blocks[-1] and taken > width:
            blocks.append([])
        blocks[-1].append(number)
    return blocks
