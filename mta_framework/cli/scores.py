"""The scores of a report, for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mta_framework.cli.table import table

if TYPE_CHECKING:
    from mta_framework.evaluation.report import Report


def score_lines(report: Report) -> list[str]:
    """A table for each metric, and what a cell of it is; nothing where nothing was evaluated."""
    if report.evaluation is None:
        return []
    from mta_framework.evaluation.tables import heading, metrics, score_rows, seeds_note

    lines = []
    for metric in metrics(report.evaluation):
        rows = score_rows(report.evaluation, metric)
        lines += ["", heading(report.evaluation, metric), *table(rows, indent="  ", right=True)]
    return [*lines, "", seeds_note(report.evaluation.seeds)]
