"""The figures of a run's page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mta_framework.evaluation.report import EvaluationFacts, Geometry, MetricFacts, Report, Score
from mta_framework.reporting.bars import parts
from mta_framework.reporting.curves import loss_terms, panel
from mta_framework.reporting.heatmaps import heat_map
from mta_framework.reporting.intervals import Estimate, axis_of, intervals
from mta_framework.reporting.layer_map import layer_map
from mta_framework.reporting.page import Drawing
from mta_framework.reporting.svg import svg
from mta_framework.reporting.training_log import points, validation_points

_QUANTITIES = {"grad_norm": "gradient norm, before it is clipped", "learning_rate": "learning rate"}


@dataclass(frozen=True)
class KeyLayer:
    """What is shown of the geometry at one key layer."""

    title: str
    agreement: str
    maps: tuple[Drawing, ...]
    low: str
    high: str


def score_figures(facts: EvaluationFacts, metric: str, number: int) -> Iterator[Drawing]:
    """The scores of one metric as dots with their intervals, set by set on the same axis."""
    own = [score for score in facts.scores if score.metric == metric]
    sets = list(dict.fromkeys(score.set for score in own))
    axis = axis_of([_estimate(score) for score in own], ratios=_metric(facts, metric).mean == "geometric")
    for place, name in enumerate(sets):
        rows = [_estimate(score) for score in own if score.set == name]
        shown = name or "average"
        image = svg(intervals(rows, axis), f"scores{number}x{place}", f"{metric} on {shown} by model")
        yield Drawing(shown, image)


def score_note(facts: EvaluationFacts, metric: str) -> str:
    """How to read them."""
    own = [score for score in facts.scores if score.metric == metric]
    lines = " Lines: 95 % intervals over prompts." if any(score.interval for score in own) else ""
    ticks = " Ticks: single seeds." if len(facts.seeds) > 1 else ""
    better = "Higher" if _metric(facts, metric).higher_is_better else "Lower"
    return f"Dots: means.{lines}{ticks} {better} is better."


def _metric(facts: EvaluationFacts, metric: str) -> MetricFacts:
    return next((entry for entry in facts.metrics if entry.label == metric), MetricFacts(metric))


def _estimate(score: Score) -> Estimate:
    single = score.per_seed if len(score.per_seed) > 1 else ()
    return Estimate(score.model, score.mean, score.interval, single)


def curve_figures(report: Report) -> Iterator[Drawing]:
    """The loss, its terms, gradient norm and learning rate by step; what was not logged is left out."""
    names = loss_terms(report.log)
    told = {"loss": "loss (total)" if names else "loss"} | {name: name for name in names} | _QUANTITIES
    for number, (name, title) in enumerate(told.items()):
        if points(report.log, name)[0] or validation_points(report.log, name)[0]:
            yield Drawing(title, svg(panel(report.log, name), f"curve{number}", f"{title} by step"))


def step_figure(report: Report) -> Drawing | None:
    """Where the time of a step goes, the longest part first."""
    usage = {name: seconds for name, seconds in report.step_time.items() if seconds > 0}
    if not usage:
        return None
    ordered = dict(sorted(usage.items(), key=lambda part: -part[1]))
    image = svg(parts(ordered, "s"), "steptime", "Seconds per step by part")
    return Drawing("time of a step", image, f"Mean over the steps: {sum(usage.values()):.3g} s in all.")


def layer_figure(report: Report) -> Drawing | None:
    """Which layers were compared."""
    if not report.layer_pairs:
        return None
    counts = [
        max(report.models[role].layers if role in report.models else 0, *(getattr(pair, role) for pair in pairs))
        for pairs in [report.layer_pairs]
        for role in ("student", "teacher")
    ]
    told = f"From the first layer, left, to the last: {counts[0]} of the student, {counts[1]} of the teacher."
    image = svg(layer_map(report.layer_pairs, *counts), "layers", "Key layers of student and teacher")
    return Drawing("key layers", image, told)


def geometry_figures(found: Sequence[Geometry]) -> Iterator[KeyLayer]:
    """Teacher, student before and student after, in the same colours, key layer by key layer."""
    for number, layer in enumerate(found):
        shown = {
            f"teacher, layer {layer.pair.teacher}": layer.teacher,
            f"student before training, layer {layer.pair.student}": layer.before,
            f"student after training, layer {layer.pair.student}": layer.after,
        }
        values = [value for matrix in shown.values() for row in matrix for value in row if math.isfinite(value)]
        if not values:
            continue
        low, high = min(values), max(values)
        maps = tuple(
            Drawing(name, svg(heat_map(matrix, layer.labels, low, high), f"geometry{number}x{place}", name))
            for place, (name, matrix) in enumerate(shown.items())
        )
        yield KeyLayer(
            f"Key layer {layer.pair}".replace("->", "→"), _agreement(layer), maps, f"{low:.2f}", f"{high:.2f}"
        )


def _agreement(layer: Geometry) -> str:
    before, after = (
        "not measured" if value is None else f"{value:.3f}" for value in (layer.agreement_before, layer.agreement_after)
    )
    return f"Agreement with the teacher over {layer.texts:,} texts: {before} before training, {after} after."
