"""The page of a run, or of an evaluation without one: what was not done is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mta_framework.evaluation.report import EvaluationFacts, Report
from mta_framework.evaluation.tables import formatted, metrics, score_rows, seeds_note
from mta_framework.reporting import figures, summary_text
from mta_framework.reporting.annotated_text import AnnotatedText
from mta_framework.reporting.page import Plot, render
from mta_framework.reporting.span_html import strips

_SECTIONS = {
    "scores": "Scores",
    "curves": "Training",
    "alignment": "Alignment",
    "samples": "Sample responses",
    "tables": "Models and data",
}
_ANCHORS = {"curves": "training", "tables": "data"}
"""Where a section is called otherwise than what it shows."""


@dataclass(frozen=True)
class Tile:
    """A number that stands out, and what belongs to it."""

    name: str
    value: str
    detail: str


@dataclass(frozen=True)
class ScoreBlock:
    """One metric: its table, the plot of each set, and how to read them."""

    metric: str
    rows: list[list[str]]
    plots: list[Plot]
    note: str


def run_page(report: Report) -> str:
    """The page, as HTML."""
    values = _values(report)
    values["alignment"] = values["layer_map"] or values["geometry"] or values["strips"]
    sections = [(_ANCHORS.get(name, name), heading) for name, heading in _SECTIONS.items() if values[name]]
    return render("run.html", title=report.name, sections=[*sections, ("repeat", "Use and repeat")], **values)


def _values(report: Report) -> dict[str, Any]:
    facts = report.evaluation
    texts = [AnnotatedText(sample.text, sample.spans) for sample in report.span_samples]
    return {
        "report": report,
        "trained": summary_text.trained(report),
        "tiles": list(_tiles(report)),
        "scores": list(_scores(facts)) if facts else [],
        "seeds_note": seeds_note(facts.seeds) if facts else "",
        "usage": summary_text.usage(facts) if facts else "",
        "sets": summary_text.sets(facts) if facts else [],
        "curves": list(figures.curves(report)),
        "step_bars": figures.step_bars(report),
        "layer_map": figures.layer_map(report),
        "geometry": list(figures.heat_maps(report.geometry)),
        "marked_texts": texts,
        "strips": strips(texts) if texts else None,
        "samples": list(_samples(facts)) if facts else [],
        "tables": list(_tables(report)),
        "unparsed": summary_text.unparsed(report),
        "loading": summary_text.loading(report.student_folder) if report.steps else "",
        "circumstances": list(_circumstances(report)),
        "settings": summary_text.settings(report),
    }


def _tiles(report: Report) -> Iterator[Tile]:
    facts = report.evaluation
    for metric in metrics(facts) if facts else []:
        assert facts is not None
        own = [score for score in facts.scores if score.metric == metric]
        model = "student" if any(score.model == "student" for score in own) else own[0].model
        score = [score for score in own if score.model == model][-1]  # the average, where there are several sets
        value, _, detail = formatted(score).partition(" ")
        yield Tile(f"{metric}, {model}, {score.set or 'average of the sets'}", value, detail)
    if report.steps:
        pace = "" if report.seconds_per_step is None else f"{report.seconds_per_step:.3g} s each"
        yield Tile("steps", f"{report.steps:,}", pace)
    sizes = {role: model.parameters for role, model in report.models.items()}
    if "student" in sizes:
        share = f"{sizes['student'] / sizes['teacher']:.0%} of the teacher's" if sizes.get("teacher") else ""
        yield Tile("parameters", _short(sizes["student"]), share)


def _short(count: int) -> str:
    """``124 M``."""
    for unit, name in ((10**9, " B"), (10**6, " M"), (10**3, " k")):
        if count >= unit:
            return f"{count / unit:.3g}{name}"
    return str(count)


def _scores(facts: EvaluationFacts) -> Iterator[ScoreBlock]:
    for number, metric in enumerate(metrics(facts)):
        plots = list(figures.score_plots(facts, metric, number))
        yield ScoreBlock(metric, score_rows(facts, metric), plots, figures.score_note(facts, metric))


def _samples(facts: EvaluationFacts) -> Iterator[Mapping[str, Any]]:
    for sample in facts.samples:
        columns = {"reference": sample.reference, **sample.responses}
        yield {"set": sample.set, "prompt": sample.prompt, "columns": columns}


def _tables(report: Report) -> Iterator[tuple[str, summary_text.Rows]]:
    found = {
        "The models": summary_text.models(report),
        "The texts that were trained on": summary_text.data(report),
        "The spans in them": summary_text.spans(report),
    }
    yield from ((caption, rows) for caption, rows in found.items() if rows)


def _circumstances(report: Report) -> Iterator[tuple[str, summary_text.Rows]]:
    if report.timings:
        yield "Seconds of this command", summary_text.timings(report)
    if report.versions:
        yield "Versions", [["what", "version"], *([name, value] for name, value in report.versions.items())]
