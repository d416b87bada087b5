"""Reports and comparisons as Markdown, for terminals and code hosts."""

from __future__ import annotations

from collections.abc import Iterator

from mta_framework.comparison.comparison_tables import run_table
from mta_framework.comparison.renderings import table_groups
from mta_framework.comparison.results import Comparison, SideBySide
from mta_framework.evaluation.report import Report, SampleResponses
from mta_framework.reporting.page import render_template
from mta_framework.reporting.summary_text import summary
from mta_framework.tables.table import Table

LONGEST_TEXT = 600
"""Characters of a prompt or a response that are shown."""


def report_markdown(report: Report) -> str:
    """The page: the scores first, then how they came about."""
    samples = list(_samples(report.evaluation.samples)) if report.evaluation else []
    return render_template("report.md", samples=samples, **summary(report))


def comparison_markdown(comparison: Comparison) -> str:
    """The tables of every metric with the notes below them, then texts side by side, then the runs."""
    tables = {"groups": table_groups(comparison), "runs": run_table(comparison)}
    examples = list(map(_example, comparison.examples))
    return render_template("comparison.md", title=comparison.name or "Comparison", examples=examples, **tables)


def _samples(samples: tuple[SampleResponses, ...]) -> Iterator[tuple[str, Table]]:
    """The end of each prompt, and the responses to it side by side."""
    for sample in samples:
        prompt = sample.prompt.strip()
        prompt = prompt if len(prompt) <= LONGEST_TEXT else "…" + prompt[-LONGEST_TEXT:]
        columns = {"reference": sample.reference, **sample.responses}
        cells = [_shortened(text.strip(), "…") or "(empty)" for text in columns.values()]
        yield prompt, Table(list(columns), [cells], sample.set, "l" * len(columns))


def _example(example: SideBySide) -> tuple[str, Table]:
    """A heading, and the responses of both rows below each other."""
    pair = example.pair
    outcome = {1: "better", -1: "worse", 0: "as good"}[pair.outcome]
    texts = [
        ("prompt", "", example.prompt),
        ("reference", "", example.reference),
        (pair.baseline, f"{pair.baseline_score:.2f}", example.baseline_text),
        (pair.row, f"{pair.row_score:.2f}", example.row_text),
    ]
    rows = [[name, score, _shortened(text, " ...")] for name, score, text in texts]
    table = Table(["", "score", "text"], rows, alignment="lrl")
    return f"{pair.set}, prompt {pair.position}: {pair.row} is {outcome} than {pair.baseline} by {pair.metric}", table


def _shortened(text: str, end: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + end
