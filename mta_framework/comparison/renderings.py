"""A comparison as lines of a terminal, LaTeX, CSV and JSON."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from collections.abc import Iterator, Sequence
from statistics import fmean, stdev
from typing import Any

from pydantic import TypeAdapter

from mta_framework.comparison.comparison_tables import (
    comparison_table,
    contrast_table,
    notes_with_bold,
    set_name,
    verdict_table,
)
from mta_framework.comparison.outcome_tables import outcome_table
from mta_framework.comparison.results import Comparison
from mta_framework.tables.csv_text import csv_table
from mta_framework.tables.latex import latex_table
from mta_framework.tables.table import Table
from mta_framework.tables.terminal import terminal_table, terminal_width
from mta_framework.tables.terminal_chars import visible

_SCORES = ("metric", "set", "row", "runs", "mean", "deviation", "over", "seeds", "low", "high")
_COMPARED = ("compared_with", "difference", "difference_low", "difference_high", "p", "p_holm")
_COUNTS = ("wins", "ties", "losses")
_SEEDS = ("p_seeds", "smallest_effect", "paired")
_OUTCOMES = ("outcome", "row", "seeds", "mean", "deviation", *_COMPARED, *_SEEDS[1:])
_RUNS = ("row", "compared_with", "run", "seed", "seconds")
_CURVES = ("quantity", "row", "seed", "step", "mean_seconds", "value")
_NO_ENDS = (None, None)
_PROMPTS = ("metric", "set", "prompt", "row", "score", "compared_with", "compared_score", "outcome")


def table_groups(comparison: Comparison) -> list[tuple[list[Table], Sequence[str]]]:
    """The tables of each metric, of the validation outcomes and of the verdicts, with the notes below them."""
    notes = notes_with_bold(comparison)
    groups: list[tuple[list[Table], Sequence[str]]] = [
        ([comparison_table(comparison, metric), contrast_table(comparison, metric)], notes)
        for metric in comparison.metrics
    ]
    outcomes = [outcome_table(comparison, outcome) for outcome in comparison.outcomes]
    groups += [(outcomes, comparison.outcome_notes), ([verdict_table(comparison)], notes)]
    shown = [([table for table in tables if table], below) for tables, below in groups]
    return [(tables, below) for tables, below in shown if tables]


def terminal_lines(comparison: Comparison, columns: int | None = None, styled: bool = False) -> Iterator[str]:
    """The tables and the notes.

    Args:
        comparison: What is shown.
        columns: Width of the terminal in cells; None: that of the terminal in which the command runs.
        styled: Whether the best scores are set in bold, by escape codes, as on a terminal.
    """
    for table in itertools.chain.from_iterable(tables for tables, _ in table_groups(comparison)):
        yield from (visible(table.caption), *terminal_table(table, columns, "  ", styled), "")
    notes = notes_with_bold(comparison) if styled else comparison.notes
    for note in dict.fromkeys([*notes, *comparison.outcome_notes]):
        yield from textwrap.wrap(visible(note), columns or terminal_width())


def latex(comparison: Comparison) -> str:
    """A ``table`` environment for each table, with the notes below it."""
    tables = [latex_table(table, notes) for group, notes in table_groups(comparison) for table in group]
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
            values += [contrast.p, contrast.p_holm, contrast.wins, contrast.ties, contrast.losses]
            if contrast.seeds is not None:
                values += [contrast.seeds.p, contrast.seeds.smallest_effect, contrast.seeds.paired]
        rows.append(values)
    return _csv((*_SCORES, *_COMPARED, *_COUNTS, *_SEEDS), rows)


def outcomes_csv(comparison: Comparison) -> str:
    """A line for each validation outcome of each row, with all digits, and with its difference from the baseline."""
    rows = []
    for outcome in comparison.outcomes:
        contrasts = {entry.row: entry for entry in outcome.contrasts}
        for label, by_seed in outcome.values.items():
            values = [*by_seed.values()]
            deviation = stdev(values) if len(values) > 1 else None
            line: list[object] = [outcome.label, label, len(values), fmean(values), deviation]
            if entry := contrasts.get(label):
                line += [entry.baseline, entry.difference]
                if test := entry.seeds:
                    line += [*test.interval, test.p, entry.p_holm, test.smallest_effect, test.paired]
            rows.append(line)
    return _csv(_OUTCOMES, rows)


def runs_csv(comparison: Comparison) -> str:
    """A line for each run: seconds of training, validation outcomes and mean scores, with all digits."""
    baselines = {row.label: row.baseline for row in comparison.rows}
    outcomes, scores = comparison.outcomes, list(dict.fromkeys(name for run in comparison.runs for name in run.scores))
    rows = [
        [
            *(run.row, baselines[run.row], run.name, run.seed, run.seconds),
            *(None if run.seed is None else outcome.values.get(run.row, {}).get(run.seed) for outcome in outcomes),
            *(run.scores.get(name) for name in scores),
        ]
        for run in comparison.runs
    ]
    return _csv((*_RUNS, *(outcome.label for outcome in outcomes), *scores), rows)


def curves_csv(comparison: Comparison) -> str:
    """A line for each value of the learning curves: of each run at each step; seconds are means over the row's runs."""
    rows = [
        [curves.title, label, seed, step, None if curve.seconds is None else curve.seconds[index], values[index]]
        for curves in comparison.curves
        for label, curve in curves.rows.items()
        for seed, values in curve.values.items()
        for index, step in enumerate(curve.steps)
    ]
    return _csv(_CURVES, rows)


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
