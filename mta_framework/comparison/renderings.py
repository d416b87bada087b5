"""A comparison as lines of a terminal, and as files: Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from mta_framework.comparison.comparison_tables import notes_with_bold, run_table, set_name, table_groups
from mta_framework.comparison.results import Comparison, Interval, SideBySide
from mta_framework.errors import writing_to
from mta_framework.storage import write_atomically
from mta_framework.tables.csv_text import csv_table
from mta_framework.tables.latex import latex_table
from mta_framework.tables.markdown import escape, markdown_table
from mta_framework.tables.table import Table
from mta_framework.tables.terminal import terminal_table, terminal_width
from mta_framework.tables.terminal_chars import visible

STEM = "comparison"
LONGEST_TEXT = 600
"""Characters of a text that a page of Markdown shows."""

_SCORES = ("metric", "set", "row", "runs", "mean", "deviation", "over", "seeds", "low", "high")
_COMPARED = ("compared_with", "difference", "difference_low", "difference_high", "p", "p_holm")
_OUTCOMES = ("wins", "ties", "losses", "p_seeds")
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


def comparison_markdown(comparison: Comparison) -> str:
    """The tables of every metric with the notes below them, then texts side by side, then the runs."""
    sections = ["# Comparison"]
    for group in table_groups(comparison):
        for table in group:
            sections += [f"## {escape(table.caption)}", markdown_table(table)]
        sections += ["\n".join(f"- {escape(note)}" for note in notes_with_bold(comparison))] * bool(group)
    if comparison.examples:
        sections += ["## Side by side"]
        sections += [
            "Where rows lie furthest apart: the clearest wins, then the clearest losses. "
            "Scores are means over all seeds; texts are of the first run and its first sampling seed."
        ]
    sections += [*map(_example, comparison.examples), "## Runs", markdown_table(run_table(comparison))]
    return "\n\n".join(sections) + "\n"


def latex(comparison: Comparison) -> str:
    """A ``table`` environment for each table, with the notes below it."""
    notes = notes_with_bold(comparison)
    tables = [latex_table(table, notes) for group in table_groups(comparison) for table in group]
    return "\n\n".join(["% \\usepackage{booktabs}", *tables]) + "\n"


def scores_csv(comparison: Comparison) -> str:
    """A line for each score, with all digits, and with its difference from the baseline beside it."""
    rows = []
    for metric in comparison.metrics:
        for row in comparison.rows:
            for name in comparison.columns:
                cell, contrast = row.cells[metric.label, name], comparison.contrast((metric.label, name), row.label)
                values: list[object] = [metric.label, set_name(name), row.label, len(row.runs)]
                values += [cell.mean, cell.deviation, cell.over, cell.count, *_ends(cell.interval)]
                if contrast is not None:
                    values += [contrast.baseline, contrast.difference, *_ends(contrast.interval)]
                    values += [contrast.p, contrast.p_holm]
                    values += [contrast.wins, contrast.ties, contrast.losses, contrast.p_seeds]
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
    parts = {field.name: getattr(comparison, field.name) for field in dataclasses.fields(comparison)}
    del parts["pairs"]
    return TypeAdapter(dict[str, Any]).dump_json({**parts, "rows": rows}, indent=2) + b"\n"


def write(folder: Path, comparison: Comparison) -> list[Path]:
    """Write ``comparison.md``, ``.csv``, ``.tex``, ``.json`` and ``wins.csv`` (every prompt); each appears whole.

    Returns:
        Paths of the files.

    Raises:
        RunError: The folder cannot be written to.
    """
    contents: dict[str, str | bytes] = {
        f"{STEM}.md": comparison_markdown(comparison),
        f"{STEM}.csv": scores_csv(comparison),
        f"{STEM}.tex": latex(comparison),
        f"{STEM}.json": comparison_json(comparison),
        "wins.csv": wins_csv(comparison),
    }
    for name, content in contents.items():
        put(folder / name, content)
    return [folder / name for name in contents]


def put(path: Path, content: str | bytes) -> None:
    """Write one file of a comparison; it appears whole.

    Raises:
        RunError: Its folder cannot be written to.
    """
    with writing_to(path.parent, "make room, or name another folder"):
        write_atomically(path, content)


def _example(example: SideBySide) -> str:
    pair = example.pair
    outcome = {1: "better", -1: "worse", 0: "as good"}[pair.outcome]
    title = f"### {pair.set}, prompt {pair.position}: {pair.row} is {outcome} than {pair.baseline} by {pair.metric}"
    rows = [
        ["prompt", "", _shortened(example.prompt)],
        ["reference", "", _shortened(example.reference)],
        [pair.baseline, f"{pair.baseline_score:.2f}", _shortened(example.baseline_text)],
        [pair.row, f"{pair.row_score:.2f}", _shortened(example.row_text)],
    ]
    return f"{escape(title)}\n\n{markdown_table(Table(['', 'score', 'text'], rows, alignment='lrl'))}"


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} ..."


def _csv(header: tuple[str, ...], rows: Sequence[Sequence[object]]) -> str:
    empty = [""] * len(header)
    cells = [["" if value is None else str(value) for value in row] for row in rows]
    return csv_table(Table(header, [[*row, *empty[len(row) :]] for row in cells]))


def _ends(interval: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else interval
