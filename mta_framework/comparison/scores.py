"""The scores of the rows of a table, by prompt and summed up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mta_framework.comparison.comparability import Common
from mta_framework.comparison.grouping import Group
from mta_framework.comparison.results import CellKey, RowScore, Spread
from mta_framework.errors import FaultList, collect_faults
from mta_framework.evaluation.report import ReportedMetric
from mta_framework.evaluation.statistics import PromptScores, interval, mean

Scores = Mapping[tuple[str, str], Sequence[PromptScores]]
"""Label of a metric and name of a set -> scores of each run of a row."""


def read_scores(groups: Sequence[Group], common: Common) -> dict[str, Scores]:
    """Read the scores of every row, by its label.

    Raises:
        InputError: Predictions of any run are missing, incomplete or were changed.
    """
    faults = FaultList()
    by_row: dict[str, dict[tuple[str, str], list[PromptScores]]] = {group.label: {} for group in groups}
    for group in groups:
        for run in group.runs:
            for name in common.sets:
                with collect_faults(faults):
                    for label, scores in run.scores(group.model, name, common.metrics).items():
                        by_row[group.label].setdefault((label, name), []).append(scores)
    faults.raise_any()
    return dict(by_row)


def cells(scores: Scores, common: Common) -> dict[CellKey, RowScore]:
    """All cells of a row."""
    return {
        (metric.label, name): _cell([scores[metric.label, each] for each in common.sets_of(name)])
        for metric in common.metrics
        for name in common.columns
    }


def means_of_runs(scores: Scores, common: Common, count: int) -> list[dict[CellKey, float]]:
    """The mean over prompts and sampling seeds of each of a row's ``count`` runs, by metric and set."""
    return [
        {
            (metric.label, name): mean([scores[metric.label, each][index] for each in common.sets_of(name)])
            for metric in common.metrics
            for name in common.columns
        }
        for index in range(count)
    ]


def mean_by_seed(
    group: Group, scores: Scores, metric: ReportedMetric, name: str | None, common: Common
) -> dict[int, float]:
    """Training seed -> mean of that run of a row, on a set or (None) on the average over the sets."""
    by_run = zip(*(scores[metric.label, each] for each in common.sets_of(name)), strict=True)
    return {run.seed: mean(parts) for run, parts in zip(group.runs, by_run, strict=True) if run.seed is not None}


def pooled(scores: Scores, metric: ReportedMetric, name: str | None, common: Common) -> list[PromptScores]:
    """The scores of all runs of a row: one part for a set, one for each set for their average (None)."""
    return [_together(scores[metric.label, each]) for each in common.sets_of(name)]


def _cell(by_set: Sequence[Sequence[PromptScores]]) -> RowScore:
    """Sum up one set, or the average over several."""
    parts = [_together(runs) for runs in by_set]
    by_run = [list(runs) for runs in zip(*by_set, strict=True)]
    over: Spread = "training seeds" if len(by_run) > 1 else "sampling seeds"
    means = [mean(run) for run in by_run] if len(by_run) > 1 else _by_seed(by_run[0])
    deviation = float(np.std(means, ddof=1)) if len(means) > 1 else None
    return RowScore(mean(parts), deviation, over, len(means), interval(parts))


def _by_seed(parts: Sequence[PromptScores]) -> list[float]:
    return [mean([_single(part, seed) for part in parts]) for seed in range(len(parts[0].scores_SP))]


def _single(part: PromptScores, seed: int) -> PromptScores:
    weights = None if part.weights_SP is None else part.weights_SP[seed : seed + 1]
    return PromptScores(part.scores_SP[seed : seed + 1], weights, part.mean)


def _over_seeds(part: PromptScores) -> PromptScores:
    weights_P = part.weight_by_prompt()
    return PromptScores(part.by_prompt()[None], None if weights_P is None else weights_P[None], part.mean)


def _together(runs: Sequence[PromptScores]) -> PromptScores:
    """The scores of several runs, each of the same weight whatever its number of sampling seeds."""
    if len({len(run.scores_SP) for run in runs}) > 1:
        runs = [_over_seeds(run) for run in runs]
    scores_SP = np.concatenate([run.scores_SP for run in runs])
    if all(run.weights_SP is None for run in runs):
        return PromptScores(scores_SP, None, runs[0].mean)
    # A metric may give weights to the responses of some runs alone.
    weights = [np.ones_like(run.scores_SP) if run.weights_SP is None else run.weights_SP for run in runs]
    return PromptScores(scores_SP, np.concatenate(weights), runs[0].mean)
