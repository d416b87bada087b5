"""The scores of a report, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mta_framework.tables.terminal import terminal_table

if TYPE_CHECKING:
    from mta_framework.evaluation.report import Report


def score_lines(report: Report) -> Iterator[str]:
    """Lines with a table for each metric and a legend; none if nothing was evaluated."""
    if report.evaluation is None:
        return
    from mta_framework.evaluation.score_tables import metrics, score_table, scores_note

    for metric in metrics(report.evaluation):
        table = score_table(report.evaluation, metric)
        yield from ("", table.caption, *terminal_table(table, indent="  "))
    yield from ("", scores_note(report.evaluation))
