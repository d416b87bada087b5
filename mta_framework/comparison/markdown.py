"""A comparison as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mta_framework.comparison import tables
from mta_framework.comparison.notes import DAGGER
from mta_framework.comparison.results import Comparison, SideBySide
from mta_framework.evaluation.report import MetricFacts
from mta_framework.evaluation.tables import escaped

LONGEST_TEXT = 600


def markdown(comparison: Comparison) -> str:
    """Scores, differences, notes under every table, texts side by side."""
    sections = ["# Comparison"]
    notes = "\n".join(f"- {escaped(note)}" for note in tables.all_notes(comparison))
    for metric in comparison.metrics:
        sections += [f"## {escaped(tables.heading(metric))}", _scores(comparison, metric)]
        found = tables.contrast_table(comparison, metric)
        sections += [*([_table(found[0], _escaped(found[1:]), left=3)] if found else []), notes]
    if comparison.verdicts:
        rows = tables.verdict_rows(comparison)
        sections += [f"## {escaped(tables.verdict_heading(comparison))}"]
        sections += [_table(tables.VERDICTS, _escaped(rows), left=3), notes]
    sections += _examples(comparison)
    rows = [[run.row, run.name, "" if run.seed is None else str(run.seed)] for run in comparison.runs]
    sections += ["## Runs", _table(("row", "run", "training seed"), _escaped(rows), left=2)]
    return "\n\n".join(sections) + "\n"


def _scores(comparison: Comparison, metric: MetricFacts) -> str:
    body = []
    for row in comparison.rows:
        cells = tables.shown(comparison, row, metric)
        body.append([escaped(row.label), *map(_cell, cells)])
    return _table(["", *(escaped(tables.set_name(name)) for name in comparison.columns)], body)


def _cell(cell: tables.Shown) -> str:
    score = f"**{cell.score}**" if cell.best else cell.score
    return f"{score}{DAGGER if cell.significant else ''}" + (f"<br>{escaped(cell.interval)}" if cell.interval else "")


def _examples(comparison: Comparison) -> Iterator[str]:
    if comparison.examples:
        yield "## Side by side"
        yield (
            "Where rows lie furthest apart: the clearest wins, then the clearest losses. "
            "Scores are means over all seeds; texts are of the first run and its first sampling seed."
        )
    for example in comparison.examples:
        yield _example(example)


def _example(example: SideBySide) -> str:
    pair = example.pair
    outcome = {1: "better", -1: "worse", 0: "as good"}[pair.outcome]
    title = f"### {pair.set}, prompt {pair.number}: {pair.other} is {outcome} than {pair.baseline} by {pair.metric}"
    rows = [
        ["prompt", "", _short(example.prompt)],
        ["reference", "", _short(example.reference)],
        [pair.baseline, f"{pair.baseline_score:.2f}", _short(example.baseline_text)],
        [pair.other, f"{pair.other_score:.2f}", _short(example.other_text)],
    ]
    return f"{escaped(title)}\n\n{_table(('', 'score', 'text'), _escaped(rows), left=3)}"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} ..."


def _escaped(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[escaped(cell) for cell in row] for row in rows]


def _table(head: Sequence[str], body: Sequence[Sequence[str]], left: int = 1) -> str:
    """Cells are Markdown already."""
    rule = ["---" if number < left else "---:" for number in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *body])
