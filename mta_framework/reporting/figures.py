"""The figures of a run's page: plots, and what the templates draw themselves (bars, key layers)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from mta_framework.evaluation.report import Report, ReportedEvaluation, Score
from mta_framework.evaluation.training_log import loss_terms, points, validated_alone, validation_points
from mta_framework.reporting.page import Plot
from mta_framework.reporting.plots import Estimate, axis_of, curve, intervals, svg
from mta_framework.types import LayerPair
from mta_framework.types.log_entries import RESPONSE_HEALTH, SHARE_BY_STUDENT, TEACHER_LOSS

_QUANTITIES = {
    SHARE_BY_STUDENT: "share of texts that the student wrote",
    "grad_norm": "gradient norm, before it is clipped",
    "learning_rate": "learning rate",
}


def score_plots(evaluation: ReportedEvaluation, metric: str, index: int) -> Iterator[Plot]:
    """The scores of one metric as dots with their intervals, set by set on the same axis."""
    scores = [score for score in evaluation.scores if score.metric == metric]
    geometric = any(entry.label == metric and entry.mean == "geometric" for entry in evaluation.metrics)
    axis = axis_of([_estimate(score) for score in scores], ratios=geometric)
    for position, name in enumerate(dict.fromkeys(score.set for score in scores)):
        rows = [_estimate(score) for score in scores if score.set == name]
        shown = name or "average"
        yield shown, svg(intervals(rows, axis), f"scores{index}x{position}", f"{metric} on {shown} by model")


def _estimate(score: Score) -> Estimate:
    single = score.per_seed if len(score.per_seed) > 1 else ()
    return Estimate(score.model, score.mean, score.interval, single)


def curves(report: Report) -> Iterator[Plot]:
    """The loss, its terms and its parts by teacher, other validation outcomes, gradient norm and learning rate by step.

    What was not logged is left out.
    """
    terms = loss_terms(report.log)
    titles = {"loss": "loss (total)" if terms else "loss"} | {name: name for name in terms}
    titles |= {f"{TEACHER_LOSS}{name}": f"loss on the texts of {name}" for name in report.teachers}
    titles |= {name: name for name in validated_alone(report.log)} | _QUANTITIES
    for index, (name, title) in enumerate(titles.items()):
        if points(report.log, name)[0] or validation_points(report.log, name)[0]:
            chosen = report.best.step if report.best and report.best.metric == name else None
            yield title, svg(curve(report.log, name, chosen), f"curve{index}", f"{title} by step")


def response_curves(report: Report) -> Iterator[Plot]:
    """The health of the student's own responses by step; empty where steps trained on none."""
    for index, (name, title) in enumerate(RESPONSE_HEALTH.items()):
        if points(report.log, name)[0]:
            yield title, svg(curve(report.log, name), f"responses{index}", f"{title} by step")


def step_bars(report: Report) -> list[tuple[str, float, str]]:
    """The mean time of a training step by part, the longest first; parts that took none are left out.

    Returns:
        Name of each part, its time in per cent of the longest, and its time and share of the whole as text.
    """
    parts = sorted(((seconds, name) for name, seconds in report.step_time.items() if seconds > 0), reverse=True)
    total = sum(seconds for seconds, _ in parts)
    return [(name, 100 * seconds / parts[0][0], f"{seconds:.3g} s · {seconds / total:.0%}") for seconds, name in parts]


def layer_map(report: Report) -> tuple[dict[str, int], dict[str, list[LayerPair]]] | None:
    """The key layers; None where nothing was aligned. A model of unknown depth ends at its last key layer.

    Returns:
        Number of decoder blocks of ``student`` and ``teacher``, and granularity -> its key layers.
    """
    if not report.layer_pairs:
        return None
    layers = {role: max(getattr(pair, role) for pair in report.layer_pairs) for role in ("student", "teacher")}
    layers |= {role: max(depth, report.models[role].layers) for role, depth in layers.items() if role in report.models}
    pairs = defaultdict(list)
    for pair in report.layer_pairs:
        pairs[pair.granularity].append(pair)
    return layers, pairs
