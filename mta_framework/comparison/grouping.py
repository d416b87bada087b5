"""Runs -> rows of a table: which runs are one method."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mta_framework.comparison.finished_runs import Run, flat
from mta_framework.comparison.labels import label, told_apart
from mta_framework.errors import Fault, InputError
from mta_framework.spec.effects import effect_of
from mta_framework.spec.run import RunSpec


@dataclass(frozen=True)
class Group:
    """A row before it has scores.

    Args:
        label: What it is called.
        runs: Its runs.
        model: Which of their models.
        baseline: Label of the row that it is compared to.
        beyond_alignment: Fields, besides the alignment, in which it differs from that.
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


def group(runs: Sequence[Run], labels: Sequence[str | None]) -> list[Group]:
    """Methods: runs of one label, or else runs that differ in nothing but their seed.

    Args:
        runs: In the order of the table.
        labels: One for each run; None where the spec decides.

    Raises:
        InputError: A method has two runs of one seed.
    """
    methods: dict[str, list[int]] = {}
    for number, (run, given) in enumerate(zip(runs, labels, strict=True)):
        methods.setdefault(f"={given}" if given is not None else _method(run), []).append(number)
    members = [[runs[number] for number in numbers] for numbers in methods.values()]
    faults = [fault for row in members for fault in _repetitions(row)]
    if faults:
        raise InputError(faults)
    proposed = [labels[numbers[0]] or label(runs[numbers[0]]) for numbers in methods.values()]
    names = told_apart(proposed, members)
    return [Group(name, tuple(row), row[0].models[0]) for name, row in zip(names, members, strict=True)]


def references(runs: Sequence[Run], methods: Collection[str]) -> list[Group]:
    """The other models that the runs evaluated, one row for those that scored alike to the last digit.

    Args:
        runs: All runs.
        methods: Labels that are given away.
    """
    found: dict[tuple[str, str], Run] = {}
    for run in runs:
        for model in run.models[1:]:
            scores = [dataclasses.asdict(score) for score in run.facts.scores if score.model == model]
            found.setdefault((model, json.dumps(scores)), run)
    groups: list[Group] = []
    for (model, _), run in found.items():
        name = model.replace("_", " ")
        labels = [name, f"{name} of {run.name}", f"{name} of {run.folder}"]
        alone = [kind for kind, _ in found].count(model) == 1
        taken = {*methods, *(entry.label for entry in groups)}
        free = [label for label in labels[0 if alone else 1 :] if label not in taken]
        groups.append(Group(free[0], (run,), model))
    return groups


def what_counts(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted field -> value of all that the weights depend on, but for the seed: what runs of one method share."""
    return {
        name: value for name, value in flat(spec).items() if name != "seed" and effect_of(RunSpec, name) == "weights"
    }


def _method(run: Run) -> str:
    trained = run.seed is not None
    return json.dumps(what_counts(run.report.spec), sort_keys=True) if trained else str(run.folder.resolve())


def _repetitions(runs: Sequence[Run]) -> Iterator[Fault]:
    by_seed: dict[int | None, Run] = {}
    for run in runs:
        first = by_seed.setdefault(run.seed, run)
        if first is not run:
            problem = f"is the method of {first.folder} with the same seed (got {run.seed})"
            yield Fault(str(run.folder), problem, "one run for each method and seed", "Leave one of them out.")
