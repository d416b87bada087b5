"""The stages of a sweep: all faults first, then what its cells share, then the cells, then their comparison."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType

from mta_framework.comparison.comparability import first_of
from mta_framework.comparison.compare import compare
from mta_framework.comparison.results import Comparison
from mta_framework.distributed import processes
from mta_framework.errors import Fault, FaultList, InputError, RunError, collect_faults, faults_of_teacher_run
from mta_framework.reporting.report_files import write_comparison
from mta_framework.runs import pipeline
from mta_framework.runs.folder import RunFolder, locked
from mta_framework.runs.plugin_binding import BoundRun
from mta_framework.spec.run import RunSpec
from mta_framework.sweeps.bound_sweep import BoundCell, BoundSweep, CellFaults, require_free_sweep
from mta_framework.sweeps.cluster import Cluster, cluster
from mta_framework.sweeps.grid import rows_of
from mta_framework.sweeps.job import PAUSE, Job, Outcome, is_at_work
from mta_framework.sweeps.pool import Pool, usable_cores, visible_devices
from mta_framework.sweeps.sweep_progress import SweepProgress

Runner = Pool | Cluster
"""Runs jobs, several at once where there is room."""


def runner(slots: int | None, address: str | None) -> AbstractContextManager[Runner]:
    """The runner that the runs of a sweep are given to.

    Args:
        slots: Number of runs at once; None: one, or as many as a cluster has room for.
        address: Address of a Ray cluster; None: this machine.
    """
    if address is not None:
        return cluster(address, slots)
    return nullcontext(Pool(slots or 1, visible_devices(), usable_cores()))


def run_sweep(
    bound: BoundSweep,
    runner: AbstractContextManager[Runner],
    resume: bool,
    tell: Callable[[str], None],
    plugin_files: tuple[Path, ...] = (),
) -> list[str]:
    """Run every cell that is not finished; one that fails doesn't stop the others.

    Args:
        bound: A sound sweep.
        runner: Starts the runs.
        resume: Whether to go on with a sweep that was interrupted.
        tell: Called with a line for everything that happens.
        plugin_files: Plugin files that every run loads besides the installed plugins.

    Returns:
        Names of the runs that failed.

    Raises:
        InputError: Folders, data or models do not fit the specs; nothing was run.
        RunError: The folder cannot be written to, or another process holds it.
        KeyboardInterrupt: All processes were ended.
    """
    require_free_sweep(bound, resume)
    if (count := processes().num_processes) > 1:
        problem = f"starts processes itself (got {count} that were launched together)"
        raise InputError([Fault("mta sweep", problem, "a single process", "Start it without a launcher, with --jobs.")])
    with locked(bound.sweep.folder, "this sweep", "set output_dir"), _ended_by_request():
        _await_others(bound, tell)
        waiting = [cell for cell in bound.cells if cell.state != "finished"]
        teachers = [run for run in bound.teachers if not RunFolder.of(run.spec).is_finished] if waiting else []
        if len(waiting) < len(bound.cells):
            tell(f"{len(bound.cells) - len(waiting)} of {len(bound.cells)} cells are finished")
        if not waiting:
            return []
        with runner as started:
            tell("checking models and data, parsing spans")
            _check_and_parse(waiting, teachers, len(bound.cells))
            progress = SweepProgress(len(teachers) + len(waiting), tell)
            lost = _train_teachers(teachers, started, plugin_files, progress)
            jobs = [Job(cell.cell.name, cell.run, plugin_files) for cell in waiting]
            jobs = [job for job in jobs if not progress.is_lost(job, lost)]
            _run(jobs, started, progress)
        return progress.failed


def compare_cells(bound: BoundSweep) -> tuple[Comparison, list[Path]] | None:
    """Compare the finished cells, those of one row as its training seeds, and write the comparison.

    Returns:
        The comparison, which says what is not finished, and the files that it was written to; None where no cell is
        finished that was evaluated or validated.

    Raises:
        RunError: Some predictions were changed since, or the comparison cannot be written.
    """
    finished = [cell for cell in bound.cells if cell.state == "finished"]  # once: cells may end meanwhile
    cells = [cell for cell in finished if _is_measured(cell.run.spec)]
    if not cells:
        return None
    rows = {cell.cell.row for cell in cells}
    baselines = {row: base for row, base in rows_of(bound.sweep).items() if base and {row, base} <= rows}
    folders, labels = [cell.folder.path for cell in cells], [cell.cell.row for cell in cells]
    given = baselines if bound.sweep.baseline else None
    try:
        # What the cells were evaluated on differs where an axis says so, and nowhere else.
        compared = compare(folders, given, despite_differences=True, labels=labels)
    except InputError as error:
        raise RunError(f"the finished cells cannot be compared: {error}") from error
    comparison = replace(compared.noted(_left_out(bound, finished)), name=bound.sweep.name)
    return comparison, write_comparison(bound.sweep.folder, comparison)


def _left_out(bound: BoundSweep, finished: Sequence[BoundCell]) -> list[str]:
    """A sentence on the cells that are not finished, if there are any."""
    ended = {cell.cell.name for cell in finished}
    names = [cell.cell.name for cell in bound.cells if cell.cell.name not in ended]
    if not names:
        return []
    count = f"{len(names)} of {len(bound.cells)} cells"
    return [f"Not finished, so left out: {count} ({first_of(names)}). p (Holm) counts only the tests made here."]


def _is_measured(spec: RunSpec) -> bool:
    return spec.evaluation is not None or spec.data.validation is not None


def _await_others(bound: BoundSweep, tell: Callable[[str], None]) -> None:
    """Wait for runs of this sweep that other processes are at work on, such as those that a killed sweep left behind.

    They go on with what they began, so nothing of it is lost; what they do not finish is resumed afterwards.
    """
    folders = {f"teacher {run.spec.name}": RunFolder.of(run.spec) for run in bound.teachers}
    folders |= {cell.cell.name: cell.folder for cell in bound.cells}
    busy = {name: folder for name, folder in folders.items() if is_at_work(folder)}
    if busy:
        tell(f"waiting for {', '.join(busy)}: another process is at work there")
    while busy:
        time.sleep(PAUSE)
        for name in [name for name, folder in busy.items() if not is_at_work(folder)]:
            del busy[name]
            tell(f"no longer at work: {name}")


def _check_and_parse(cells: Sequence[BoundCell], teachers: Sequence[BoundRun], count: int) -> None:
    """Find the faults of models and data of all runs, and fill the span cache that they share."""
    groups: dict[str, list[BoundCell]] = {}
    for cell in cells:
        # Faults and spans do not depend on what a run is called or where its random numbers begin.
        values = cell.run.spec.model_dump(mode="json", exclude={"name", "seed"})
        groups.setdefault(json.dumps(values, sort_keys=True), []).append(cell)
    cell_faults, faults = CellFaults(count), FaultList()
    for teacher in teachers:
        with collect_faults(faults), faults_of_teacher_run(teacher.path):
            pipeline.plan(teacher, alone=False)
    for group in groups.values():
        with cell_faults.collect(*(cell.cell.name for cell in group)):
            pipeline.plan(group[0].run, alone=False)
    FaultList([*faults, *cell_faults.named]).raise_any()


def _train_teachers(
    teachers: Sequence[BoundRun], runner: Runner, plugin_files: tuple[Path, ...], progress: SweepProgress
) -> set[Path]:
    """Train the teachers, those that others start from first.

    Returns:
        Folders of the teachers that were not trained.
    """
    lost: set[Path] = set()
    waiting = list(teachers)
    while waiting:
        behind = {run.spec.folder for run in waiting}
        ready = [run for run in waiting if run.teacher is None or run.teacher.spec.folder not in behind]
        waiting = [run for run in waiting if run not in ready]
        jobs = [Job(f"teacher {run.spec.name}", run, plugin_files) for run in ready]
        left = [job for job in jobs if not progress.is_lost(job, lost)]
        done = {outcome.job.run.spec.folder for outcome in _run(left, runner, progress) if outcome.finished}
        lost |= {run.spec.folder for run in ready} - done
    return lost


def _run(jobs: Sequence[Job], runner: Runner, progress: SweepProgress) -> list[Outcome]:
    outcomes = []
    for outcome in runner.outcomes(jobs, progress.started):
        progress.ended(outcome)
        outcomes.append(outcome)
    return outcomes


@contextmanager
def _ended_by_request() -> Iterator[None]:
    """Schedulers end a process by SIGTERM: its runs must end with it, as after Ctrl-C."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
