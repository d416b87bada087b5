"""The cells of a sweep: every combination of the choices of its axes."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mta_framework.errors import Fault
from mta_framework.reporting.report_files import COMPARISON_FILE
from mta_framework.spec.evaluation import METRIC_CACHE
from mta_framework.spec.sweep import Choice, SweepSpec

_TAKEN = {"span-cache", "response-cache", "teacher-cache", METRIC_CACHE, "comparison", "wins"}
"""Names that a cell may not have, up to the first dot; nor may it have that of a file of the comparison."""


@dataclass(frozen=True)
class SweepCell:
    """One run of a sweep.

    Args:
        name: Name of the run and of its folder.
        row: Label of its row in tables; cells that differ only in the training seed share a row.
        labels: Label of the cell's choice on every axis.
        spec: Spec that the settings are applied to.
        settings: Dotted field -> value, in the order in which they are applied.
    """

    name: str
    row: str
    labels: tuple[str, ...]
    spec: str
    settings: tuple[tuple[str, Any], ...]

    @property
    def overrides(self) -> tuple[str, ...]:
        """The settings as ``--set`` takes them."""
        return tuple(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in self.settings)


def cells_of(sweep: SweepSpec) -> list[SweepCell]:
    """All cells, the last axis fastest; none where the sweep names no spec for them."""
    combinations = itertools.product(*(axis.choices for axis in sweep.axes))
    return [cell for choices in combinations if (cell := _cell(sweep, choices)) is not None]


def rows_of(sweep: SweepSpec) -> dict[str, str | None]:
    """The rows of the table in the order of the axes, each with the row that it is compared to."""
    axis_index, compared = sweep.baselines
    rows: dict[str, str | None] = {}
    for labels in itertools.product(*([choice.label for choice in axis.choices] for axis in sweep.axes)):
        baseline = compared.get(labels[axis_index])
        against = None if baseline is None else (*labels[:axis_index], baseline, *labels[axis_index + 1 :])
        rows[_row(sweep, labels)] = None if against is None else _row(sweep, against)
    return rows


def name_faults(sweep: SweepSpec, cells: Sequence[SweepCell]) -> Iterator[Fault]:
    """Cells whose labels do not tell their folders or their rows apart, or leave nothing of a name."""
    by_name: dict[str, list[SweepCell]] = {}
    by_row: dict[str, dict[tuple[str, ...], SweepCell]] = {}
    for cell in cells:
        by_name.setdefault(cell.name.casefold(), []).append(cell)  # many file systems know no case
        by_row.setdefault(cell.row, {}).setdefault(_row_labels(sweep, cell.labels), cell)
    for name, group in by_name.items():
        if len(group) > 1 or not name or name.partition(".")[0] in _TAKEN or COMPARISON_FILE.fullmatch(name):
            got = ", ".join(" + ".join(map(repr, cell.labels)) for cell in group)
            problem = f"would {'share' if len(group) > 1 else 'give a cell'} the folder {name!r}"
            expected = "labels whose letters, digits, '.', '_' and '-' make a new name for every cell"
            yield Fault("axes", f"{problem} (got {got})", expected, "Choose other labels.")
    for row, alike in by_row.items():
        if len({cell.name.casefold() for cell in alike.values()}) > 1:
            got = ", ".join(" + ".join(map(repr, labels)) for labels in alike)
            problem = f"would share the row {row!r} of the table (got {got})"
            yield Fault("axes", problem, "labels that make a new row when joined", "Choose other labels.")


def _cell(sweep: SweepSpec, choices: Sequence[Choice]) -> SweepCell | None:
    spec = next((choice.spec for choice in choices if choice.spec), sweep.spec)
    if spec is None:
        return None
    labels = tuple(choice.label for choice in choices)
    slugs = (re.sub(r"[^A-Za-z0-9._-]+", "-", label).strip("-._") for label in labels)
    name = "-".join(filter(None, slugs))
    location = {"name": name, "output_dir": str(sweep.folder)}
    changes = (sweep.set, *(choice.settings for choice in choices), location)
    settings = tuple(item for change in changes for item in change.items())
    return SweepCell(name, _row(sweep, labels), labels, spec, settings)


def _row(sweep: SweepSpec, labels: Sequence[str]) -> str:
    return " ".join(_row_labels(sweep, labels)) or sweep.name


def _row_labels(sweep: SweepSpec, labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(label for axis, label in zip(sweep.axes, labels, strict=True) if not axis.is_seeds)
