"""The page of a comparison."""

from __future__ import annotations

from collections.abc import Iterator
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
from mta_framework.comparison.outcome_tables import outcome_table
from mta_framework.comparison.results import Comparison, Contrast, SideBySide, ValidationOutcome
from mta_framework.evaluation.report import ReportedMetric
from mta_framework.reporting.curve_figures import curve_blocks, curves_note
from mta_framework.reporting.page import Plot, render_template
from mta_framework.reporting.plots import Estimate, axis_of, intervals, svg

_MOST_IN_TITLE = 6


def comparison_page(comparison: Comparison) -> str:
    """The page, as HTML."""
    blocks = [_block(comparison, metric, index) for index, metric in enumerate(comparison.metrics)]
    outcomes = [_outcome_block(comparison, outcome, index) for index, outcome in enumerate(comparison.outcomes)]
    curves = list(curve_blocks(comparison))
    sections = {
        "scores": "Scores" if blocks else "",
        "differences": "Differences" if comparison.contrasts else "",
        "validation": "Validation outcomes" if outcomes else "",
        "training": "Learning curves" if curves else "",
        "verdicts": "Side by side verdicts" if comparison.verdicts else "",
        "texts": "Texts side by side" if comparison.examples else "",
        "runs": "Runs",
    }
    return render_template(
        "comparison.html",
        title=_title(comparison),
        sections=[(name, heading) for name, heading in sections.items() if heading],
        comparison=comparison,
        blocks=blocks,
        compared={row.label for row in comparison.rows if row.baseline is not None},
        signed=signed,
        notes=notes_with_bold(comparison),
        verdicts=verdict_table(comparison),
        examples=_examples(comparison),
        outcomes=outcomes,
        curves=curves,
        curves_note=curves_note(comparison),
        runs=run_table(comparison),
    )


def _title(comparison: Comparison) -> str:
    if comparison.name:
        return comparison.name
    labels = [row.label for row in comparison.rows if not row.reference]
    return f"{len(labels)} methods" if len(labels) > _MOST_IN_TITLE else ", ".join(labels) or "Comparison"


def _examples(comparison: Comparison) -> dict[tuple[str, str, str], list[SideBySide]]:
    """The texts by row, baseline and metric."""
    by_contrast: dict[tuple[str, str, str], list[SideBySide]] = {}
    for example in comparison.examples:
        pair = example.pair
        by_contrast.setdefault((pair.row, pair.baseline, pair.metric), []).append(example)
    return by_contrast


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
    axis = axis_of(*estimates.values(), zero=True)
    for position, (name, rows) in enumerate(estimates.items()):
        description = f"Difference in {metric.label} on {name}, with 95 % intervals"
        yield name, svg(intervals(rows, axis), f"difference{index}x{position}", description)


def _outcome_block(comparison: Comparison, outcome: ValidationOutcome, index: int) -> dict[str, Any]:
    """The table of a validation outcome, and its differences as a plot if there is a test."""
    tested = [entry for entry in outcome.contrasts if entry.seeds is not None]
    estimates = [
        Estimate(f"{entry.row} − {entry.baseline}", entry.difference, entry.seeds.interval if entry.seeds else None)
        for entry in tested
    ]
    description = f"Differences in {outcome.label}, with 95 % intervals over training seeds"
    plots = [(outcome.label, svg(intervals(estimates, axis_of(estimates, zero=True)), f"outcome{index}", description))]
    return {"table": outcome_table(comparison, outcome), "plots": plots if tested else []}
