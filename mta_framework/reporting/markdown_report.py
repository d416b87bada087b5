"""The report as Markdown, for terminals and code hosts."""

from __future__ import annotations

from collections.abc import Iterator

from mta_framework.evaluation.report import Report, SampleResponses
from mta_framework.reporting.page import render_template
from mta_framework.reporting.summary_text import summary
from mta_framework.tables.table import Table

LONGEST_SAMPLE = 600
"""Characters of a prompt or a response that are shown."""


def report_markdown(report: Report) -> str:
    """The page: the scores first, then how they came about."""
    samples = list(_samples(report.evaluation.samples)) if report.evaluation else []
    return render_template("report.md", samples=samples, **summary(report))


def _samples(samples: tuple[SampleResponses, ...]) -> Iterator[tuple[str, Table]]:
    """The end of each prompt, and the responses to it side by side."""
    for sample in samples:
        prompt = sample.prompt.strip()
        prompt = prompt if len(prompt) <= LONGEST_SAMPLE else "…" + prompt[-LONGEST_SAMPLE:]
        columns = {"reference": sample.reference, **sample.responses}
        cells = [_shortened(text.strip()) or "(empty)" for text in columns.values()]
        yield prompt, Table(list(columns), [cells], sample.set, "l" * len(columns))


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_SAMPLE else text[:LONGEST_SAMPLE] + "…"
