"""Binds every cell of a sweep, with the faults of all of them at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mta_framework.comparison.comparability import first_of
from mta_framework.errors import Fault, FaultList, InputError, collect_faults, faults_of_teacher_run
from mta_framework.registry import Registry
from mta_framework.runs.folder import RunFolder
from mta_framework.runs.plugin_binding import BoundRun, bind
from mta_framework.runs.resume import is_reported, require_same
from mta_framework.spec.document import shown
from mta_framework.spec.effects import differences
from mta_framework.spec.run import RunSpec
from mta_framework.spec.sweep import SweepSpec, read_sweep
from mta_framework.sweeps.grid import SweepCell, cells_of, name_faults


@dataclass(frozen=True)
class BoundCell:
    """A cell of a sweep and its run, which can start."""

    cell: SweepCell
    run: BoundRun

    @property
    def folder(self) -> RunFolder:
        """Folder of the run."""
        return RunFolder.of(self.run.spec)

    @property
    def state(self) -> str:
        """``new``, ``begun`` or ``finished``; finished with another evaluation is begun."""
        if not self.folder.spec_file.is_file():
            return "new"
        return "finished" if is_reported(self.run) else "begun"


@dataclass(frozen=True)
class BoundSweep:
    """A sweep whose runs can start."""

    sweep: SweepSpec
    cells: tuple[BoundCell, ...]

    @property
    def teachers(self) -> list[BoundRun]:
        """The distinct runs that the cells' teachers come from, each after the one that its own teacher comes from."""
        teachers: dict[Path, BoundRun] = {}
        for cell in self.cells:
            for teacher in reversed(list(cell.run.chain())[1:]):
                teachers.setdefault(teacher.spec.folder, teacher)
        return list(teachers.values())


class CellFaults:
    """Collects the faults of cells; a fault that several cells have is reported once.

    Args:
        cells: Number of cells of the sweep.
    """

    def __init__(self, cells: int) -> None:
        self._cells = cells
        self._cells_by_fault: dict[Fault, list[str]] = {}

    @contextmanager
    def collect(self, *cells: str) -> Iterator[None]:
        """Keep the faults that are raised inside as faults of these cells."""
        faults = FaultList()
        with collect_faults(faults):
            yield
        for fault in faults:
            self._cells_by_fault.setdefault(fault, []).extend(cells)

    @property
    def named(self) -> FaultList:
        """All faults, each with the names of its cells in front."""
        return FaultList(
            dataclasses.replace(fault, where=f"{self._names(cells)}: {fault.where.removeprefix('--set ')}")
            for fault, cells in self._cells_by_fault.items()
        )

    def _names(self, cells: Sequence[str]) -> str:
        if len(cells) == self._cells:
            return "every cell"
        return f"cell{'s' if len(cells) > 1 else ''} {first_of(cells)}"


def bind_sweep(path: Path, registry: Registry) -> BoundSweep:
    """Read a sweep and bind the specs of its cells.

    Args:
        path: File of the sweep.
        registry: The plugins to choose from.

    Raises:
        InputError: Every fault of the sweep and of its cells at once.
    """
    sweep, faults = read_sweep(path)
    cells = cells_of(sweep)
    faults += name_faults(sweep, cells)
    cell_faults = CellFaults(len(cells))
    bound = []
    for cell in cells:
        with cell_faults.collect(cell.name):
            bound.append(BoundCell(cell, bind(Path(cell.spec), registry, cell.overrides)))
    FaultList([*faults, *cell_faults.named]).raise_any()
    _require_one_evaluation(sweep, bound)
    return BoundSweep(sweep, tuple(bound))


def require_free_sweep(bound: BoundSweep, resume: bool) -> None:
    """Refuse folders that hold other runs, before anything slow starts.

    Raises:
        InputError: Some cell has begun and ``resume`` is not set, or a cell or teacher was begun by another spec.
    """
    begun = [cell for cell in bound.cells if cell.folder.spec_file.is_file()]
    if begun and not resume:
        count = f"{len(begun)} of its {len(bound.cells)} cells begun"
        problem = f"already holds a sweep, {count} (got {bound.sweep.folder})"
        raise InputError([Fault("name", problem, "a name without a sweep", "Choose another, or go on with --resume.")])
    cell_faults = CellFaults(len(bound.cells))
    for cell in begun:
        with cell_faults.collect(cell.cell.name):
            require_same(cell.run)
    faults = cell_faults.named
    for teacher in bound.teachers:
        folder = RunFolder.of(teacher.spec)
        if folder.spec_file.is_file():
            with collect_faults(faults), faults_of_teacher_run(teacher.path):
                require_same(teacher)
    faults.raise_any()


def _require_one_evaluation(sweep: SweepSpec, cells: Sequence[BoundCell]) -> None:
    """Cells that are evaluated differently, though no axis says so, could not be compared in the end."""
    varied = [name for axis in sweep.axes for name in axis.fields if name.partition(".")[0] == "evaluation"]
    sections = [cell.run.spec.model_dump(mode="json")["evaluation"] for cell in cells]
    for cell, section in zip(cells, sections, strict=True):
        differing = differences(RunSpec, sections[0], section, ("responses", "scores"), "evaluation")
        where, then, now = next(differing, ("", None, None))
        if where and not varied:
            problem = f"is not the same in all cells, which are to be compared (got {shown(now)} in {cell.cell.name})"
            hint = f'Set it for all cells: "set": {{"{where}": ...}}.'
            raise InputError([Fault(where, problem, f"{shown(then)}, as in {cells[0].cell.name}", hint)])
