"""Rows of a table: which runs are one method, and what a row is called."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mta_framework.comparison.finished_runs import Run, flat
from mta_framework.errors import Fault, FaultList
from mta_framework.spec.alignment import AlignmentSection
from mta_framework.spec.effects import default_of, effect_of
from mta_framework.spec.run import RunSpec


@dataclass(frozen=True)
class Group:
    """A row before it has scores.

    Args:
        label: Label of the row.
        runs: Runs of the row.
        model: Name of the compared model of these runs.
        baseline: Label of the row that it is compared with.
        beyond_alignment: Fields, besides the alignment, in which it differs from its baseline.
    """

    label: str
    runs: tuple[Run, ...]
    model: str
    baseline: str | None = None
    beyond_alignment: tuple[str, ...] = ()

    @property
    def reference(self) -> bool:
        """Whether it stands beside the methods: a teacher, or a student before training."""
        return self.model != self.runs[0].models[0]


def group(runs: Sequence[Run], labels: Sequence[str] | None = None) -> list[Group]:
    """Group runs by method: runs with one label, or else runs that differ in nothing but their seed.

    Args:
        runs: Runs in the order of the table.
        labels: Label for each run; None: their specs decide.

    Raises:
        InputError: A method has two runs of one seed.
    """
    methods: dict[str, list[int]] = {}
    for index, key in enumerate(map(_method, runs) if labels is None else labels):
        methods.setdefault(key, []).append(index)
    members = [[runs[index] for index in indices] for indices in methods.values()]
    FaultList(fault for row in members for fault in _repetitions(row)).raise_any()
    proposed = list(map(_label, runs)) if labels is None else labels
    names = [proposed[indices[0]] for indices in methods.values()]
    rows = zip(distinct_labels(names, members), members, strict=True)
    return [Group(name, tuple(row), row[0].models[0]) for name, row in rows]


def references(runs: Sequence[Run], methods: Collection[str]) -> list[Group]:
    """Group the other evaluated models: one row for those that scored alike to the last digit.

    Args:
        runs: All runs.
        methods: Labels that are taken.
    """
    distinct: dict[tuple[str, str], Run] = {}
    for run in runs:
        for model in run.models[1:]:
            scores = [dataclasses.asdict(score) for score in run.evaluation.scores if score.model == model]
            distinct.setdefault((model, json.dumps(scores)), run)
    counts = Counter(model for model, _ in distinct)
    groups: list[Group] = []
    for (model, _), run in distinct.items():
        name = model.replace("_", " ")
        labels = [name, f"{name} of {run.name}", f"{name} of {run.folder}"]
        taken = {*methods, *(entry.label for entry in groups)}
        free = [label for label in labels[counts[model] > 1 :] if label not in taken]
        groups.append(Group(free[0], (run,), model))
    return groups


def what_counts(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted field -> value of all that the weights depend on, but for the seed: what runs of one method share.

    Left out is a default within a section that affects nothing by itself, such as ``teacher.cache``: it holds without
    that section as well.
    """
    return {
        name: value
        for name, value in flat(spec).items()
        if name != "seed" and effect_of(RunSpec, name) == "weights" and not _holds_anyway(name, value)
    }


def _holds_anyway(field: str, value: Any) -> bool:
    parts = field.split(".")
    sections = [".".join(parts[:length]) for length in range(1, len(parts))]
    return any(effect_of(RunSpec, name) == "nothing" for name in sections) and default_of(RunSpec, field) == value


def distinct_labels(proposed: Sequence[str], runs: Sequence[Sequence[Run]]) -> list[str]:
    """Labels of which no two are the same: those that clash become the names of the runs, or their folders.

    Args:
        proposed: Label of each row.
        runs: Runs of each row.
    """
    labels = list(proposed)
    for fallback in (_shared_name, lambda row: str(row[0].folder)):
        counts = Counter(labels)
        labels = [one if counts[one] == 1 else fallback(row) for one, row in zip(labels, runs, strict=True)]
    return labels


def _label(run: Run) -> str:
    """``KL``, ``KL + MTA``, or ``KL + DSA`` and so on by its terms; the name of a run that trained nothing."""
    spec = run.report.spec
    if "base_loss" not in spec or not spec.get("training"):
        return run.name
    title = run.report.base_loss_title or spec["base_loss"]["name"]
    alignment = spec.get("alignment")
    if alignment is None:
        return title
    terms = [term["name"] for term in alignment["terms"]]
    if set(terms) == {term.name for term in AlignmentSection.model_fields["terms"].default}:
        return f"{title} + MTA"
    return " + ".join([title, *(run.report.term_titles.get(name, name) for name in terms)])


def _shared_name(runs: Sequence[Run]) -> str:
    """The name of a single run, or how the names of several begin."""
    names = [run.name for run in runs]
    if len(names) == 1:
        return names[0]
    letters = itertools.takewhile(lambda row: len(set(row)) == 1, zip(*names, strict=False))
    alike = "".join(row[0] for row in letters)
    if any(name[len(alike) : len(alike) + 1].isdecimal() for name in names):  # no number is cut in two
        alike = alike.rstrip("0123456789")
    return alike.rstrip("-_. ") or names[0]


def _method(run: Run) -> str:
    trained = run.seed is not None
    return json.dumps(what_counts(run.spec), sort_keys=True) if trained else str(run.folder.resolve())


def _repetitions(runs: Sequence[Run]) -> Iterator[Fault]:
    by_seed: dict[int | None, Run] = {}
    for run in runs:
        first = by_seed.setdefault(run.seed, run)
        if first is not run:
            problem = f"is the method of {first.folder} with the same seed (got {run.seed})"
            yield Fault(str(run.folder), problem, "one run for each method and seed", "Leave one of them out.")
