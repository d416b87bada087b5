"""A comparison as lines of a terminal, LaTeX, CSV and JSON."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import TypeAdapter

from mta_framework.comparison.comparison_tables import notes_with_bold, set_name, table_groups
from mta_framework.comparison.results import Comparison
from mta_framework.tables.csv_text import csv_table
from mta_framework.tables.latex import latex_table
from mta_framework.tables.table import Table
from mta_framework.tables.terminal import terminal_table, terminal_width
from mta_framework.tables.terminal_chars import visible

_SCORES = ("metric", "set", "row", "runs", "mean", "deviation", "over", "seeds", "low", "high")
_COMPARED = ("compared_with", "difference", "difference_low", "difference_high", "p", "p_holm")
_OUTCOMES = ("wins", "ties", "losses", "p_seeds")
_NO_ENDS = (None, None)
_PROMPTS = ("metric", "set", "prompt", "row", "score", "compared_with", "compared_score", "outcome")


def terminal_lines(comparison: Comparison, columns: int | None = None, styled: bool = False) -> Iterator[str]:
    """The tables and the notes.

    Args:
        comparison: What is shown.
        columns: Width of the terminal in cells; None: that of the terminal in which the command runs.
        styled: Whether the best scores are set in bold, by escape codes, as on a terminal.
    """
    for table in itertools.chain.from_iterable(table_groups(comparison)):
        yield from (visible(table.caption), *terminal_table(table, columns, "  ", styled), "")
    for note in notes_with_bold(comparison) if styled else comparison.notes:
        yield from textwrap.wrap(visible(note), columns or terminal_width())


def latex(comparison: Comparison) -> str:
    """A ``table`` environment for each table, with the notes below it."""
    notes = notes_with_bold(comparison)
    tables = [latex_table(table, notes) for group in table_groups(comparison) for table in group]
    return "\n\n".join(["% \\usepackage{booktabs}", *tables]) + "\n"


def scores_csv(comparison: Comparison) -> str:
    """A line for each score, with all digits, and with its difference from the baseline beside it."""
    rows = []
    for metric, row, name in itertools.product(comparison.metrics, comparison.rows, comparison.columns):
        cell, contrast = row.cells[metric.label, name], comparison.contrast((metric.label, name), row.label)
        values: list[object] = [metric.label, set_name(name), row.label, len(row.runs)]
        values += [cell.mean, cell.deviation, cell.over, cell.count, *(cell.interval or _NO_ENDS)]
        if contrast is not None:
            values += [contrast.baseline, contrast.difference, *(contrast.interval or _NO_ENDS)]
            values += [contrast.p, contrast.p_holm, contrast.wins, contrast.ties, contrast.losses, contrast.p_seeds]
        rows.append(values)
    return _csv((*_SCORES, *_COMPARED, *_OUTCOMES), rows)


def wins_csv(comparison: Comparison) -> str:
    """A line for each prompt of each contrast: both scores, and 1 where the row is better, -1 where it is worse."""
    rows = []
    for pair in comparison.pairs:
        row, baseline = (pair.row, pair.row_score), (pair.baseline, pair.baseline_score)
        rows.append([pair.metric, pair.set, pair.position, *row, *baseline, pair.outcome])
    return _csv(_PROMPTS, rows)


def comparison_json(comparison: Comparison) -> bytes:
    """Standard JSON: the cells of a row as a list, NaN as null; the prompts are left to ``wins.csv``."""
    rows = [
        {
            **{name: getattr(row, name) for name in ("label", "baseline", "runs", "reference")},
            "cells": [
                {"metric": metric, "set": entry, **dataclasses.asdict(cell)}
                for (metric, entry), cell in row.cells.items()
            ],
        }
        for row in comparison.rows
    ]
    parts = {**vars(comparison), "rows": rows}
    del parts["pairs"]
    return TypeAdapter(dict[str, Any]).dump_json(parts, indent=2) + b"\n"


def _csv(header: tuple[str, ...], rows: Sequence[Sequence[object]]) -> str:
    empty = [""] * len(header)
    cells = [["" if value is None else str(value) for value in row] for row in rows]
    return csv_table(Table(header, [[*row, *empty[len(row) :]] for row in cells]))
