"""The sections of a sweep: a grid over the fields of a spec. Structure and types; no torch, no plugin code."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from mta_framework.errors import Fault, InputError
from mta_framework.spec.document import read_document, shown
from mta_framework.spec.section import Contradiction, Location, Name, Section, Text, exactly_one, schema_of
from mta_framework.spec.validation_faults import faults_of

MOST_CELLS = 1_000
"""Most cells of a sweep: each is a run, and all are checked before the first one starts."""

_CELL_FIELDS = ("name", "output_dir")
"""Fields of a spec that the sweep sets for each cell."""


@dataclass(frozen=True)
class Choice:
    """One entry of an axis.

    Args:
        label: Name of the choice in tables.
        settings: Dotted name of a field -> value.
        spec: Path of the spec that it starts from; None means the sweep's.
    """

    label: str
    settings: dict[str, Any] = field(default_factory=dict)
    spec: str | None = None


class AxisSection(Section):
    """An axis of the grid: labelled settings, labelled specs, or one field with its values."""

    name: Text = Field(description="Name of the axis.", examples=["method"])
    cells: dict[Text, dict[Text, Any]] | None = Field(
        None,
        min_length=1,
        description="Label -> settings, each a dotted field of the spec -> its value, which may be null.",
    )
    specs: dict[Text, Location] | None = Field(
        None, min_length=1, description="Label -> path of a spec, instead of `spec`."
    )
    field: Text | None = Field(None, description="Dotted name of the field that varies, e.g. seed.")
    values: list[Any] | None = Field(None, min_length=1, description="Values of `field`.")

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The choices in their order; values are labelled with the name of the axis."""
        if self.field is not None:
            labels = [value if isinstance(value, str) else shown(value) for value in self.values or ()]
            pairs = zip(labels, self.values or (), strict=True)
            return tuple(Choice(f"{self.name} {label}", {self.field: value}) for label, value in pairs)
        labelled = [Choice(label, settings) for label, settings in (self.cells or {}).items()]
        return (*labelled, *(Choice(label, {}, spec) for label, spec in (self.specs or {}).items()))

    @property
    def fields(self) -> tuple[str, ...]:
        """Dotted names of all fields that some choice sets."""
        return tuple(dict.fromkeys(name for choice in self.choices for name in choice.settings))

    @property
    def is_seeds(self) -> bool:
        """Whether the axis varies the training seed only, so that its cells share a row of the table."""
        return self.field == "seed"

    def contradictions(self) -> Iterator[Contradiction]:
        yield from exactly_one(self, "cells", "specs", "field")
        if self.field is not None and self.values is None:
            yield Contradiction(
                "values", ("values",), "must be given with field (got null)", "a list of values", "Add it."
            )
        if self.field is None and self.values is not None:
            problem = f"has no effect without field (got {shown(self.values)})"
            yield Contradiction("values", ("values",), problem, "null", "Remove it.")
        yield from self._repetitions()
        for name in self.fields:
            yield from _unsettable("", name)

    def _repetitions(self) -> Iterator[Contradiction]:
        if self.field is None:
            return
        values = [json.dumps(value, sort_keys=True) for value in self.values or ()]
        labels = [choice.label for choice in self.choices]
        if len(set(values)) < len(values):
            problem = f"repeats a value (got {shown(self.values)})"
            yield Contradiction("values", ("values",), problem, "each value once", "Remove the repetition.")
        elif len(set(labels)) < len(labels):
            shared = next(label for label in labels if labels.count(label) > 1)
            problem = f"gives different values the same label (got {shown(shared)})"
            hint = "Give them as cells, label -> settings, instead of field and values."
            yield Contradiction("values", ("values",), problem, "values whose labels differ", hint)


class SweepSpec(Section):
    """A sweep, in which every combination of the axes' choices is a run."""

    name: Name = Field(description="Name of the sweep and of its folder.", examples=["my-sweep"])
    output_dir: Location = Field(
        "sweeps",
        description="Folder of the sweeps; the run folder of a cell is output_dir/name/CELL.",
        validate_default=True,
    )
    spec: Location | None = Field(None, description="Path of the spec that is varied; null if an axis gives specs.")
    set: dict[Text, Any] = Field(
        {}, description="Settings of all cells, by dotted field, applied before those of the axes."
    )
    axes: list[AxisSection] = Field(
        min_length=1,
        description="Axes of the grid.",
        examples=[[{"name": "seed", "field": "seed", "values": [1, 2, 3]}]],
    )
    baseline: Text | dict[Text, Text] | None = Field(
        None, description="Label that all others of its axis are compared with, or label -> label of one axis."
    )

    @property
    def folder(self) -> Path:
        """The folder of the sweep, which contains the folders of its cells."""
        return Path(self.output_dir) / self.name

    @property
    def baselines(self) -> tuple[int, dict[str, str]]:
        """Index of the axis along which rows are compared, and label -> label of its baseline."""
        for index in self._baseline_axes():
            if isinstance(self.baseline, str):
                labels = [choice.label for choice in self.axes[index].choices]
                return index, {label: self.baseline for label in labels if label != self.baseline}
            return index, dict(self.baseline or {})
        return 0, {}

    def contradictions(self) -> Iterator[Contradiction]:
        yield from self._specs()
        names = [axis.name for axis in self.axes]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            problem = f"has two axes of one name (got {shown(twice)})"
            yield Contradiction("axes", ("axes",), problem, "a name for each axis", "Rename one of them.")
        for name in self.set:
            yield from _unsettable("set", name)
        yield from self._overridden()
        if self.baseline is not None:
            yield from self._baseline()

    def _specs(self) -> Iterator[Contradiction]:
        choosers = [axis.name for axis in self.axes if axis.specs]
        given = [*(["spec"] if self.spec else []), *(f"axis {name!r}" for name in choosers)]
        if len(given) != 1:
            problem = "must be given exactly once" + (f" (got {' and '.join(given)})" if given else "")
            yield Contradiction("spec", ("spec", "axes"), problem, "spec, or one axis with specs", "Keep one of them.")

    def _overridden(self) -> Iterator[Contradiction]:
        """Report settings that a later one replaces in every cell."""
        for index, axis in enumerate(self.axes):
            later = [(other.name, name) for other in self.axes[index + 1 :] for name in other.fields]
            for name in axis.fields:
                for other, replacing in later:
                    if _within(name, replacing):
                        yield _replaced(f"axes.{index}", name, f"axis {other!r} sets {replacing}")
        for name in self.set:
            for axis in self.axes:
                if axis.choices and all(any(_within(name, by) for by in choice.settings) for choice in axis.choices):
                    yield _replaced("set", name, f"every choice of axis {axis.name!r} sets it")

    def _baseline_axes(self) -> list[int]:
        """Indices of the axes that have every label of the baseline."""
        if self.baseline is None:
            return []
        named = self.baseline if isinstance(self.baseline, dict) else {self.baseline: self.baseline}
        asked = {*named, *named.values()}
        return [index for index, axis in enumerate(self.axes) if asked <= {choice.label for choice in axis.choices}]

    def _baseline(self) -> Iterator[Contradiction]:
        index, baselines = self.baselines
        got = f"(got {shown(self.baseline)})"
        itself = [label for label, baseline in baselines.items() if label == baseline]
        if not baselines:
            labels = [choice.label for axis in self.axes if not axis.is_seeds for choice in axis.choices]
            problem = f"does not consist of labels of one axis, or leaves nothing to compare {got}"
            yield Contradiction("baseline", ("baseline", "axes"), problem, f"one of {', '.join(labels)}", "Correct it.")
        elif len(self._baseline_axes()) > 1:
            axes = " and ".join(repr(self.axes[each].name) for each in self._baseline_axes())
            problem, expected = f"could mean either of the axes {axes} {got}", "labels that only one axis has"
            yield Contradiction("baseline", ("baseline", "axes"), problem, expected, "Rename them in the other axes.")
        elif self.axes[index].is_seeds:
            problem = f"is a training seed, and all seeds form one row {got}"
            yield Contradiction("baseline", ("baseline", "axes"), problem, "a label of another axis", "Correct it.")
        elif itself:
            problem = f"compares {' and '.join(map(repr, itself))} with itself {got}"
            expected = "label -> another label of the same axis"
            yield Contradiction("baseline", ("baseline", "axes"), problem, expected, "Remove it or name another.")


def read_sweep(path: Path) -> tuple[SweepSpec, list[Fault]]:
    """Read and validate a sweep; the specs of its cells are checked by binding.

    Args:
        path: JSON file in UTF-8. Paths in it are relative to its folder; those in settings to the folder of the spec.

    Returns:
        The sweep, and the contradictions between its fields.

    Raises:
        InputError: The file does not exist, or with every structural fault.
    """
    document, faults = read_document(path, "the file of a sweep", "The guide `run a sweep` shows one.")
    if "axes" not in document and document.keys() & {"data", "student", "training"}:
        hint = "Use mta check and mta run for it, or vary it by a sweep that names it as its spec."
        problem = f"is the spec of one run (got the sections {', '.join(document)})"
        raise InputError([Fault(str(path), problem, "a sweep, which has axes", hint)])
    context = {"folder": path.resolve().parent, "defer_contradictions": True}

    def where(key_path: tuple[str | int, ...]) -> str:
        return ".".join(map(str, key_path)) or str(path)

    try:
        sweep = SweepSpec.model_validate(document, strict=True, context=context)
    except ValidationError as error:
        raise InputError([*faults, *faults_of(error, schema_of(SweepSpec), where, "field")]) from None
    if (count := math.prod(len(axis.choices) for axis in sweep.axes)) > MOST_CELLS:
        expected = f"at most {MOST_CELLS:,} combinations of their choices"
        problem = f"make too many cells (got {count:,})"
        raise InputError([*faults, Fault("axes", problem, expected, "Split the sweep, or drop choices.")])
    sections: list[tuple[tuple[str | int, ...], Section]] = [((), sweep)]
    sections += [(("axes", index), axis) for index, axis in enumerate(sweep.axes)]
    for key_path, section in sections:
        for item in section.contradictions():
            at = where((*key_path, item.at) if item.at else key_path)
            faults.append(Fault(at, item.problem, item.expected, item.hint))
    return sweep, faults


def _unsettable(at: str, name: str) -> Iterator[Contradiction]:
    if "=" in name or not all(name.split(".")):
        problem, expected = f"is not a field (got {name!r})", "a dotted path into a spec, e.g. training.epochs"
        yield Contradiction(at, ("set", "axes"), problem, expected, "Correct it.")
    if name in _CELL_FIELDS:
        problem = f"is set by the sweep for every cell (got {name!r})"
        expected = "name and output_dir of the sweep, from which the folders of the cells are derived"
        yield Contradiction(at, ("set", "axes"), problem, expected, "Remove it.")


def _within(name: str, outer: str) -> bool:
    return name == outer or name.startswith(f"{outer}.")


def _replaced(at: str, name: str, why: str) -> Contradiction:
    problem, expected = f"sets {name} without effect, since {why}", "one setting of each field"
    return Contradiction(at, ("set", "axes"), problem, expected, "Remove one of the two.")
