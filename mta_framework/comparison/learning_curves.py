"""Learning curves of the rows of a table: validation outcomes and training losses over steps and training time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from mta_framework.comparison.finished_runs import Run
from mta_framework.comparison.grouping import Group
from mta_framework.comparison.results import Curve, LearningCurves, ValidationOutcome
from mta_framework.evaluation.training_log import points
from mta_framework.types.log_entries import EVAL, TRAINING_SECONDS

_TRAINING = {"loss": "training loss (total)", "grad_norm": "gradient norm, before it is clipped"}


def learning_curves(groups: Sequence[Group], outcomes: Sequence[ValidationOutcome]) -> Iterator[LearningCurves]:
    """Collect the curves of the validation outcomes, then of loss and gradient norm of training.

    Args:
        groups: Rows of the table.
        outcomes: Validation outcomes of these rows.
    """
    trained = [group for group in groups if not group.reference]
    unit = _unit_of_time([run for group in trained for run in group.runs])
    logged = [(outcome.label, EVAL + outcome.name, set(outcome.values)) for outcome in outcomes if not outcome.exported]
    logged += [(title, name, {group.label for group in trained}) for name, title in _TRAINING.items()]
    slugs: Counter[str] = Counter()
    for title, name, labels in logged:
        rows = [group for group in trained if group.label in labels]
        curves = {row.label: curve for row in rows if (curve := _curve(row.runs, name, bool(unit))) is not None}
        slug = re.sub(r"[^a-z0-9]+", "-", name.removeprefix(EVAL).lower()).strip("-")
        slugs[slug] += 1
        if curves:
            yield LearningCurves(
                slug if slugs[slug] == 1 else f"{slug}-{slugs[slug]}", title, curves, unit, name.startswith(EVAL)
            )


def curve_notes(groups: Sequence[Group]) -> Iterator[str]:
    """A sentence for each row with runs of unequal length, whose curves end with the shortest."""
    for row in groups:
        steps = [run.report.steps for run in row.runs]
        if not row.reference and min(steps) < max(steps):
            end = f"step {min(steps):,}, with its shortest run (the longest has {max(steps):,})"
            yield f"The learning curves of {row.label} end at {end}."


def _curve(runs: Sequence[Run], name: str, timed: bool) -> Curve | None:
    """The quantity at the steps that all runs have, in order; None where there is none."""
    logged = [dict(zip(*points(run.report.log, name), strict=True)) for run in runs]
    steps = sorted(set.intersection(*map(set, logged)))
    if not steps:
        return None
    clocks = [dict(zip(*points(run.report.log, TRAINING_SECONDS), strict=True)) for run in runs]
    values = {run.seed or 0: tuple(of_run[step] for step in steps) for run, of_run in zip(runs, logged, strict=True)}
    known = timed and all(step in clock for clock in clocks for step in steps)
    seconds = tuple(float(np.mean([clock[step] for clock in clocks])) for step in steps) if known else None
    return Curve(tuple(steps), seconds, values)


def _unit_of_time(runs: Sequence[Run]) -> str:
    """What the training times count, for axes; empty where runs on a CPU and on GPUs would be set side by side."""
    on_cpu = {run.report.versions.get("device", "cpu").startswith("cpu") for run in runs}
    if len(on_cpu) > 1:
        return ""
    return "processor time" if True in on_cpu else "training time"
