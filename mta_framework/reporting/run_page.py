"""The page of a run, or of an evaluation without one: what was not done is left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from mta_framework.evaluation.report import Report, ReportedEvaluation
from mta_framework.evaluation.score_tables import cell_of, metrics, score_table
from mta_framework.reporting import figures
from mta_framework.reporting.annotated_text import AnnotatedText
from mta_framework.reporting.page import Plot, render_template
from mta_framework.reporting.span_html import strips
from mta_framework.reporting.summary_text import summary
from mta_framework.tables.table import Table


def run_page(report: Report) -> str:
    """The page, as HTML."""
    texts = [AnnotatedText(sample.text, sample.spans) for sample in report.span_samples]
    values = summary(report) | {
        "tiles": list(_tiles(report)),
        "blocks": list(_blocks(report.evaluation)) if report.evaluation else [],
        "curves": list(figures.curves(report)),
        "response_curves": list(figures.response_curves(report)),
        "step_bars": figures.step_bars(report),
        "layer_map": figures.layer_map(report),
        "geometry": [layer for layer in report.geometry if layer.similarities],
        "marked_texts": texts,
        "strips": strips(texts) if texts else None,
    }
    values["alignment"] = values["layer_map"] or values["geometry"] or values["strips"]
    sections = {
        "scores": "Scores" if values["blocks"] else "",
        "training": "Training" if values["curves"] else "",
        "alignment": "Alignment" if values["alignment"] else "",
        "samples": "Sample responses" if report.evaluation and report.evaluation.samples else "",
        "data": "Models and data" if values["models"] or values["data"] or values["spans"] else "",
        "repeat": "Use and repeat",
    }
    values["sections"] = [(name, heading) for name, heading in sections.items() if heading]
    return render_template("run.html", title=report.name, shown=sections, **values)


def _blocks(evaluation: ReportedEvaluation) -> Iterator[tuple[str, Table, list[Plot]]]:
    """Of each metric its label, its table, and the plot of each set."""
    for index, metric in enumerate(metrics(evaluation)):
        table = dataclasses.replace(score_table(evaluation, metric), caption="By model and set")
        yield metric, table, list(figures.score_plots(evaluation, metric, index))


def _tiles(report: Report) -> Iterator[tuple[str, str, str]]:
    """Numbers that stand out: the name, the value, and what belongs to it."""
    evaluation = report.evaluation
    for metric in metrics(evaluation) if evaluation else []:
        assert evaluation is not None
        scores = [score for score in evaluation.scores if score.metric == metric]
        model = "student" if any(score.model == "student" for score in scores) else scores[0].model
        score = [score for score in scores if score.model == model][-1]  # the average, where there are several sets
        cell = cell_of(score)
        value, _, deviation = cell.text.partition(" ")
        detail = f"{deviation} {cell.below}".strip()
        yield f"{metric}, {model}, {score.set or 'average of the sets'}", value, detail
    if report.steps:
        pace = "" if report.seconds_per_step is None else f"{report.seconds_per_step:.3g} s each"
        yield "steps", f"{report.steps:,}", pace
    sizes = {role: model.parameters for role, model in report.models.items()}
    if "student" in sizes:
        share = f"{sizes['student'] / sizes['teacher']:.0%} of the teacher's" if sizes.get("teacher") else ""
        yield "parameters", _short(sizes["student"]), share


def _short(count: int) -> str:
    """``124 M``."""
    for unit, name in ((10**9, " B"), (10**6, " M"), (10**3, " k")):
        if count >= unit:
            return f"{count / unit:.3g}{name}"
    return str(count)
