"""Whether runs were evaluated alike, and what they have in common where they were not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mta_framework.comparison.finished_runs import Run
from mta_framework.comparison.grouping import distinct_labels
from mta_framework.comparison.results import with_average
from mta_framework.errors import Fault, InputError, require_known
from mta_framework.evaluation.report import ReportedMetric
from mta_framework.spec.effects import effect_of
from mta_framework.spec.evaluation import ScoringSection
from mta_framework.spec.run import RunSpec

_SETS, _METRICS = "evaluation.sets.", "evaluation.metrics."
_MOST_NAMED = 3


@dataclass(frozen=True)
class UnequalSetting:
    """A setting of the evaluation that is not the same in all runs: its dotted name, and value -> names of runs."""

    where: str
    values: dict[str, list[str]]

    def __str__(self) -> str:
        return "; ".join(f"{value} in {first_of(names)}" for value, names in self.values.items())


@dataclass(frozen=True)
class Common:
    """What can be compared.

    Args:
        metrics: Metrics that scored all runs with the same options; none where no run was evaluated.
        sets: Names of the sets on which all runs were evaluated, with the same rows.
        differences: Differences in the evaluation that were accepted.
        lacking: Faults of runs that were evaluated, but on no set, or by no metric, that all have; then both are empty.
    """

    metrics: tuple[ReportedMetric, ...]
    sets: tuple[str, ...]
    differences: tuple[UnequalSetting, ...]
    lacking: tuple[Fault, ...] = ()

    @property
    def columns(self) -> tuple[str | None, ...]:
        """The sets, then None for their average where there are several."""
        return with_average(self.sets)

    def sets_of(self, column: str | None) -> Sequence[str]:
        """The sets that a column shows: one, or all for their average."""
        return self.sets if column is None else [column]

    @property
    def left_out(self) -> set[str]:
        """Dotted names of the sets and metrics that not all runs have alike."""
        compared = {f"{_SETS}{name}" for name in self.sets} | {f"{_METRICS}{metric.label}" for metric in self.metrics}
        return {entry.where for entry in self.differences if entry.where.startswith((_SETS, _METRICS))} - compared


def common(runs: Sequence[Run], despite_differences: bool = False, labels: Sequence[str] = ()) -> Common:
    """Find what all runs were evaluated on.

    Args:
        runs: The runs.
        despite_differences: Whether runs that were evaluated differently are compared by what they have in common.
        labels: Labels of the metrics to compare; empty: all.

    Raises:
        InputError: The runs were evaluated differently (every difference), unless ``despite_differences``; or a label
            that no metric, or not every run, has.
    """
    if not any(run.evaluation.sets for run in runs):
        require_known("--metric", "metric of all runs", labels, [])
        return Common((), (), ())
    differences = [difference for difference in _settings_by_value(runs) if len(difference.values) > 1]
    uneven = {difference.where for difference in differences}
    sets = tuple(name for name in runs[0].reported_sets(runs[0].models[0]) if f"{_SETS}{name}" not in uneven)
    differences += [prompts for name in sets if len((prompts := _prompts(name, runs)).values) > 1]
    if differences and not despite_differences:
        expected = "the same value in all runs that are compared"
        hint = "Evaluate them alike by `mta evaluate`, or compare what they have in common with --despite-differences."
        raise InputError(
            Fault(entry.where, f"differs between the runs (got {entry})", expected, hint) for entry in differences
        )
    defined = [entry for entry in runs[0].evaluation.metrics if f"{_METRICS}{entry.label}" not in uneven]
    metrics = tuple(dataclasses.replace(entry, usage={}) for entry in defined)
    shared = {"set": sets, "metric": metrics}
    known = metrics or runs[0].evaluation.metrics
    require_known("--metric", "metric of all runs", labels, [metric.label for metric in known])
    if lacking := tuple(_nothing_common(noun, runs) for noun in shared if not shared[noun]):
        return Common((), (), tuple(differences), lacking)
    chosen = tuple(metric for metric in metrics if not labels or metric.label in labels)
    return Common(chosen, sets, tuple(differences))


def _settings_by_value(runs: Sequence[Run]) -> Iterator[UnequalSetting]:
    settings = [_settings(run) for run in runs]
    for where in dict.fromkeys(name for of_run in settings for name in of_run):
        yield _by_value(where, [of_run.get(where, "absent") for of_run in settings], runs)


def _by_value(where: str, values: Sequence[str], runs: Sequence[Run]) -> UnequalSetting:
    """The value of each run, as value -> names of runs."""
    by_value: dict[str, list[str]] = {}
    names = distinct_labels([run.name for run in runs], [[run] for run in runs])
    for name, value in zip(names, values, strict=True):
        by_value.setdefault(value, []).append(name)
    return UnequalSetting(where, by_value)


def _settings(run: Run) -> dict[str, str]:
    """Everything that scores depend on besides the model, as text."""
    spec, evaluation = run.report.spec, run.evaluation
    section = spec.get("evaluation") or {}
    # Not the settings of a set but its rows are compared.
    apart = ("sets", "seeds", "metrics")
    others = [(field, f"evaluation.{field}") for field in ScoringSection.model_fields if field not in apart]
    template = spec.get("template", (spec.get("data") or {}).get("template"))
    return {
        "report.json format": str(run.report.format),
        "template": str(template),
        "evaluation.seeds": json.dumps(list(evaluation.seeds)),
        **{name: json.dumps(section.get(field)) for field, name in others if effect_of(RunSpec, name) != "nothing"},
        **{f"{_SETS}{name}": _rows(run, name) for name in run.reported_sets(run.models[0])},
        **{
            f"{_METRICS}{metric.label}": json.dumps(metric.score_config, sort_keys=True)
            for metric in evaluation.metrics
        },
    }


def _rows(run: Run, name: str) -> str:
    reported = run.reported_sets(run.models[0])[name]
    # Rows without a digest are not known to be anyone else's.
    return f"{reported.prompts} prompts, {reported.digest[:12] or f'unknown ones of {run.folder}'}"


def _prompts(name: str, runs: Sequence[Run]) -> UnequalSetting:
    """The prompts of a set as they were rendered for each run: other templates ask the same question otherwise."""
    rendered = [f"digest {run.reported_sets(run.models[0])[name].prompts_digest[:12]}" for run in runs]
    return _by_value(f"rendered prompts of {name}", rendered, runs)


def _nothing_common(noun: str, runs: Sequence[Run]) -> Fault:
    problem = f"the runs have no {noun} in common (got {first_of([run.name for run in runs])})"
    return Fault(f"evaluation.{noun}s", problem, f"at least one {noun}, the same in all", "Evaluate them alike.")


def first_of(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
