"""Compares runs: the stages, one call each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mta_framework.comparison.baselines import with_baselines
from mta_framework.comparison.comparability import Common, common
from mta_framework.comparison.comparison_tables import set_name
from mta_framework.comparison.contrasts import contrasts, examples, prompt_pairs
from mta_framework.comparison.finished_runs import read_run
from mta_framework.comparison.grouping import Group, group, references
from mta_framework.comparison.learning_curves import curve_notes, learning_curves
from mta_framework.comparison.notes import notes
from mta_framework.comparison.outcomes import outcome_notes, outcomes
from mta_framework.comparison.results import Comparison, Row, RunRef
from mta_framework.comparison.scores import Scores, cells, means_of_runs, read_scores
from mta_framework.comparison.win_rates import verdict_notes, verdicts
from mta_framework.errors import InputError, apply_to_all
from mta_framework.evaluation.training_log import points
from mta_framework.interfaces import PairwiseMetric
from mta_framework.types.log_entries import TRAINING_SECONDS


def compare(
    folders: Sequence[Path],
    baselines: Mapping[str, str] | str | None = None,
    metrics: Sequence[str] = (),
    despite_differences: bool = False,
    judge: PairwiseMetric | None = None,
    labels: Sequence[str] | None = None,
) -> Comparison:
    """Compare finished runs that were evaluated alike, or validated alone: these by their validation outcomes.

    Args:
        folders: Folders of finished runs, at least one, in the order of the table.
        baselines: Label of a row -> label of the row that it is compared with; or the label of the baseline of all;
            None: the same base loss without alignment, and where there is no such pair, the first row.
        metrics: Labels of the metrics to compare; empty: all.
        despite_differences: Whether runs that were evaluated differently are compared by what they have in common.
        judge: Metric that compares the responses of exactly two rows.
        labels: Label of the row of each run; None: the specs of the runs decide.

    Raises:
        InputError: A run is not finished or its predictions are not those of its report; runs were evaluated
            differently; a label is unknown.
    """
    runs = apply_to_all(read_run, folders)
    shared = common(runs, despite_differences, metrics)
    methods = group(runs, labels)
    groups = with_baselines([*methods, *references(runs, [method.label for method in methods])], baselines)
    scores = read_scores(groups, shared)
    pairs = tuple(prompt_pairs(groups, scores, shared))
    validated = tuple(outcomes(groups))
    if shared.lacking and (judge or not validated):
        raise InputError(shared.lacking)
    judged = list(verdicts(judge, groups, shared)) if judge else []
    rows = []
    for each in groups:
        names = tuple(run.name for run in each.runs)
        rows.append(Row(each.label, each.baseline, names, cells(scores[each.label], shared), each.reference))
    compared = tuple(contrasts(groups, scores, shared, pairs))
    seed_tests = [entry.seeds for entry in compared if entry.seeds is not None]
    return Comparison(
        metrics=shared.metrics,
        sets=shared.sets,
        rows=tuple(rows),
        contrasts=compared,
        examples=tuple(examples(pairs, groups)),
        notes=(*notes(groups, scores, rows, shared, seed_tests), *(verdict_notes(judge, groups) if judge else ())),
        runs=tuple(itertools.chain.from_iterable(_runs(each, scores[each.label], shared) for each in groups)),
        pairs=pairs,
        verdicts=tuple(judged),
        outcomes=validated,
        outcome_notes=(
            *outcome_notes(groups, validated),
            *curve_notes(groups),
            *(f"No scores: {fault.problem}." for fault in shared.lacking),
        ),
        curves=tuple(learning_curves(groups, validated)),
    )


def _runs(method: Group, scores: Scores, shared: Common) -> Iterator[RunRef]:
    """The runs of a row, without those that a teacher or initial student was evaluated in."""
    if method.reference:
        return
    for run, means in zip(method.runs, means_of_runs(scores, shared, len(method.runs)), strict=True):
        named = {f"{metric} {set_name(name)}": mean for (metric, name), mean in means.items()}
        _, seconds = points(run.report.log, TRAINING_SECONDS)
        yield RunRef(run.name, str(run.folder), method.label, run.seed, max(seconds, default=None), named)
