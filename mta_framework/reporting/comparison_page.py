"""The page of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mta_framework.comparison.comparison_tables import (
    comparison_table,
    contrast_table,
    notes_with_bold,
    run_table,
    set_name,
    signed,
    verdict_table,
)
from mta_framework.comparison.results import Comparison, Contrast
from mta_framework.errors import InputError
from mta_framework.evaluation.report import ReportedMetric, read_report
from mta_framework.reporting.page import Plot, render_template
from mta_framework.reporting.plots import Estimate, axis_of, intervals, overlaid, svg
from mta_framework.reporting.training_log import Log, points

_QUANTITIES = {"loss": "loss (total)", "eval_loss": "validation loss", "grad_norm": "gradient norm"}


def comparison_page(comparison: Comparison) -> str:
    """The page, as HTML."""
    blocks = [_block(comparison, metric, index) for index, metric in enumerate(comparison.metrics)]
    curves = list(_curves(_logs(comparison)))
    sections = {
        "scores": "Scores",
        "differences": "Differences" if comparison.contrasts else "",
        "verdicts": "Side by side verdicts" if comparison.verdicts else "",
        "texts": "Texts side by side" if comparison.examples else "",
        "training": "Training" if curves else "",
        "runs": "Runs",
    }
    return render_template(
        "comparison.html",
        title=", ".join(row.label for row in comparison.rows if not row.reference) or "Comparison",
        sections=[(name, heading) for name, heading in sections.items() if heading],
        comparison=comparison,
        blocks=blocks,
        compared={row.label for row in comparison.rows if row.baseline is not None},
        signed=signed,
        notes=notes_with_bold(comparison),
        verdicts=verdict_table(comparison),
        curves=curves,
        runs=run_table(comparison),
    )


def _block(comparison: Comparison, metric: ReportedMetric, index: int) -> dict[str, Any]:
    """All that is shown of one metric."""
    of_metric = [contrast for contrast in comparison.contrasts if contrast.metric == metric.label]
    by_set = [(set_name(name), [entry for entry in of_metric if entry.set == name]) for name in comparison.columns]
    contrasts = [(name, entries) for name, entries in by_set if entries]
    return {
        "metric": metric,
        "scores": comparison_table(comparison, metric),
        "tests": contrast_table(comparison, metric),
        "differences": list(_differences(contrasts, metric, index)),
        "contrasts": contrasts,
    }


def _differences(by_set: list[tuple[str, list[Contrast]]], metric: ReportedMetric, index: int) -> Iterator[Plot]:
    estimates = {
        name: [Estimate(f"{entry.row} − {entry.baseline}", entry.difference, entry.interval) for entry in contrasts]
        for name, contrasts in by_set
    }
    axis = axis_of([row for rows in estimates.values() for row in rows], zero=True)
    for position, (name, rows) in enumerate(estimates.items()):
        description = f"Difference in {metric.label} on {name}, with 95 % intervals"
        yield name, svg(intervals(rows, axis), f"difference{index}x{position}", description)


def _logs(comparison: Comparison) -> dict[str, list[Log]]:
    """The training logs of each row's runs, of those that are still where they were."""
    logs: dict[str, list[Log]] = {}
    for run in comparison.runs:
        with suppress(InputError):  # moved or deleted since: the curves are an extra
            log = read_report(Path(run.folder)).log
            if points(log, "loss")[0]:
                logs.setdefault(run.row, []).append(log)
    return logs


def _curves(rows: Mapping[str, list[Log]]) -> Iterator[Plot]:
    for name, title in _QUANTITIES.items():
        if any(points(log, name)[0] for logs in rows.values() for log in logs):
            yield title, svg(overlaid(rows, name), f"curves-{name}", f"{title} by step, run by run")
