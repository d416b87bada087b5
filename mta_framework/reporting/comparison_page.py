"""The page of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mta_framework.comparison.notes import BOLD, DAGGER
from mta_framework.comparison.results import Comparison, Contrast
from mta_framework.comparison.tables import (
    MINUS,
    VERDICTS,
    Shown,
    contrast_table,
    heading,
    set_name,
    shown,
    verdict_heading,
    verdict_rows,
)
from mta_framework.errors import InputError
from mta_framework.evaluation.report import MetricFacts, read_report
from mta_framework.reporting.page import Plot, render
from mta_framework.reporting.plots import Estimate, axis_of, intervals, overlaid, svg
from mta_framework.reporting.summary_text import Rows
from mta_framework.reporting.training_log import Log, points

_QUANTITIES = {"loss": "loss (total)", "eval_loss": "validation loss", "grad_norm": "gradient norm"}


@dataclass(frozen=True)
class Difference:
    """How a row differs from its baseline, shown under its score, and whether that is ``better`` or ``worse``."""

    told: str
    kind: str


@dataclass(frozen=True)
class Line:
    """A row of the main table.

    Args:
        label: Its name.
        baseline: What it is compared with; empty for none.
        cells: Score, and difference or None, for each column.
    """

    label: str
    baseline: str
    cells: list[tuple[Shown, Difference | None]]


@dataclass(frozen=True)
class MetricBlock:
    """All that is shown of one metric."""

    heading: str
    columns: list[str]
    lines: list[Line]
    contrasts: Rows
    differences: list[Plot]
    outcomes: list[tuple[str, list[Contrast]]]


def comparison_page(comparison: Comparison) -> str:
    """The page, as HTML."""
    blocks = [_block(comparison, metric, number) for number, metric in enumerate(comparison.metrics)]
    curves = list(_curves(_logs(comparison)))
    verdicts = [list(VERDICTS), *verdict_rows(comparison)] if comparison.verdicts else []
    sections = {
        "scores": "Scores",
        "differences": "Differences" if comparison.contrasts else "",
        "verdicts": "Side by side verdicts" if verdicts else "",
        "texts": "Texts side by side" if comparison.examples else "",
        "training": "Training" if curves else "",
        "runs": "Runs",
    }
    return render(
        "comparison.html",
        title=", ".join(row.label for row in comparison.rows if not row.reference) or "Comparison",
        sections=[(name, told) for name, told in sections.items() if told],
        comparison=comparison,
        blocks=blocks,
        notes=[*comparison.notes, *([BOLD] if _has_bold(blocks) else [])],
        dagger=DAGGER,
        verdicts=verdicts,
        verdict_heading=verdict_heading(comparison) if verdicts else "",
        examples=list(_examples(comparison)),
        curves=curves,
        runs=[["run", "row", "training seed"], *([run.name, run.row, str(run.seed)] for run in comparison.runs)],
    )


def _block(comparison: Comparison, metric: MetricFacts, number: int) -> MetricBlock:
    lines = [
        Line(row.label, row.baseline or "", list(_cells(comparison, metric, row.label))) for row in comparison.rows
    ]
    return MetricBlock(
        heading(metric),
        [set_name(column) for column in comparison.columns],
        lines,
        contrast_table(comparison, metric),
        list(_differences(comparison, metric, number)),
        list(_by_column(comparison, metric)),
    )


def _cells(comparison: Comparison, metric: MetricFacts, label: str) -> Iterator[tuple[Shown, Difference | None]]:
    row = next(entry for entry in comparison.rows if entry.label == label)
    for column, cell in zip(comparison.columns, shown(comparison, row, metric), strict=True):
        found = comparison.contrast((metric.label, column), label)
        yield cell, None if found is None else _difference(found, metric)


def _difference(contrast: Contrast, metric: MetricFacts) -> Difference:
    gain = contrast.difference if metric.higher_is_better else -contrast.difference
    kind = "better" if gain > 0 else "worse" if gain < 0 else ""
    return Difference(f"{contrast.difference:+.2f}".replace("-", MINUS), kind)


def _has_bold(blocks: list[MetricBlock]) -> bool:
    return any(cell.best for block in blocks for line in block.lines for cell, _ in line.cells)


def _by_column(comparison: Comparison, metric: MetricFacts) -> Iterator[tuple[str, list[Contrast]]]:
    for column in comparison.columns:
        found = [entry for entry in comparison.contrasts if (entry.metric, entry.set) == (metric.label, column)]
        if found:
            yield set_name(column), found


def _differences(comparison: Comparison, metric: MetricFacts, number: int) -> Iterator[Plot]:
    own = [entry for entry in comparison.contrasts if entry.metric == metric.label]
    if not own:
        return
    axis = axis_of([_estimate(entry) for entry in own], zero=True)
    for place, (name, found) in enumerate(_by_column(comparison, metric)):
        figure = intervals([_estimate(entry) for entry in found], axis)
        told = f"Difference in {metric.label} on {name}, with 95 % intervals"
        yield Plot(name, svg(figure, f"difference{number}x{place}", told))


def _estimate(contrast: Contrast) -> Estimate:
    return Estimate(f"{contrast.other} − {contrast.baseline}", contrast.difference, contrast.interval)


def _examples(comparison: Comparison) -> Iterator[Mapping[str, Any]]:
    for example in comparison.examples:
        pair = example.pair
        columns = {
            "reference": example.reference,
            f"{pair.baseline}: {pair.baseline_score:.2f}": example.baseline_text,
            f"{pair.other}: {pair.other_score:.2f}": example.other_text,
        }
        outcome = {1: "better", 0: "as good", -1: "worse"}[pair.outcome]
        told = f"{pair.set}, prompt {pair.number}: {pair.other} is {outcome} by {pair.metric}"
        yield {"title": told, "prompt": example.prompt, "columns": columns}


def _logs(comparison: Comparison) -> dict[str, list[Log]]:
    """The training logs of each row's runs, of those that are still where they were."""
    found: dict[str, list[Log]] = {}
    for run in comparison.runs:
        with suppress(InputError):  # moved or deleted since: the curves are an extra
            log = read_report(Path(run.folder)).log
            if points(log, "loss")[0]:
                found.setdefault(run.row, []).append(log)
    return found


def _curves(rows: Mapping[str, list[Log]]) -> Iterator[Plot]:
    for name, title in _QUANTITIES.items():
        if any(points(log, name)[0] for logs in rows.values() for log in logs):
            yield Plot(title, svg(overlaid(rows, name), f"curves-{name}", f"{title} by step, run by run"))
