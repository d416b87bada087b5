"""Compares runs: the stages, one call each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mta_framework.comparison.baselines import with_baselines
from mta_framework.comparison.comparability import common
from mta_framework.comparison.contrasts import contrasts, pairs
from mta_framework.comparison.examples import examples
from mta_framework.comparison.finished_runs import Run, read_run
from mta_framework.comparison.grouping import Group, group, references
from mta_framework.comparison.notes import notes
from mta_framework.comparison.results import Comparison, Row, RunRef
from mta_framework.comparison.scores import cells, read_scores
from mta_framework.comparison.win_rates import Judge, verdicts
from mta_framework.errors import Fault, InputError, collect_faults


@dataclass(frozen=True)
class Entry:
    """A finished run: its folder, and the label of its row; None: its spec decides."""

    folder: Path
    row: str | None = None


def compare(
    entries: Sequence[Entry],
    baselines: Mapping[str, str] | str | None = None,
    metrics: Sequence[str] = (),
    despite_differences: bool = False,
    judge: Judge | None = None,
) -> Comparison:
    """Compare finished runs that were evaluated alike.

    Args:
        entries: At least one, in the order of the table.
        baselines: Label of a row -> label of what it is compared to; or the label of the baseline of all; None: the
            same base loss without alignment, and where there is no such pair, the first row.
        metrics: Labels of those to compare; none: all.
        despite_differences: Compare what all have in common where they were evaluated differently.
        judge: Compares the responses of exactly two rows.

    Raises:
        InputError: A run is not finished or its predictions are not what the report says; runs were evaluated
            differently; a label is unknown.
    """
    runs = _read([entry.folder for entry in entries])
    shared = common(runs, despite_differences).only(metrics)
    methods = group(runs, [entry.row for entry in entries])
    others = references(runs, [entry.label for entry in methods])
    groups = with_baselines([*methods, *others], baselines)
    scores = read_scores(groups, shared)
    by_row = {entry.label: cells(scores[entry.label], shared) for entry in groups}
    found = pairs(groups, scores, shared)
    judged = verdicts(judge, groups, shared) if judge else None
    return Comparison(
        metrics=shared.metrics,
        sets=shared.sets,
        rows=tuple(
            Row(
                entry.label, entry.baseline, tuple(run.name for run in entry.runs), by_row[entry.label], entry.reference
            )
            for entry in groups
        ),
        contrasts=tuple(contrasts(groups, scores, shared)),
        examples=tuple(examples(found, groups)),
        notes=(*notes(groups, scores, by_row, shared), *(judged.notes if judged else ())),
        runs=tuple(_refs(groups)),
        pairs=tuple(found),
        verdicts=judged.verdicts if judged else (),
    )


def _read(folders: Sequence[Path]) -> list[Run]:
    faults: list[Fault] = []
    runs = []
    for folder in folders:
        with collect_faults(faults):
            runs.append(read_run(folder))
    if faults:
        raise InputError(faults)
    return runs


def _refs(groups: Sequence[Group]) -> list[RunRef]:
    trained = [entry for entry in groups if not entry.reference]
    return [RunRef(run.name, str(run.folder), entry.label, run.seed) for entry in trained for run in entry.runs]
