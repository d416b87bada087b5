"""Integrity checks before a run or an evaluation begins: files of an earlier attempt get lost, cut off or edited."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from mta_framework.distributed import run_on_main
from mta_framework.errors import Fault, InputError, collect_faults, error_summary
from mta_framework.evaluation.report import newer_fault
from mta_framework.runs.build import recorded_layers
from mta_framework.runs.folder import RunFolder
from mta_framework.runs.manifest import input_faults, record_faults
from mta_framework.runs.plugin_binding import BoundRun
from mta_framework.runs.span_geometry import recorded_geometry
from mta_framework.storage import write_atomically
from mta_framework.training import checkpoints
from mta_framework.training.train import TrainingLog


def require_whole(bound: BoundRun) -> None:
    """Refuse to go on with damaged files of this run or its teacher's run, or with those of a newer version.

    The main process alone reads them; the others learn what it finds.

    Raises:
        InputError: All files that are missing or damaged, except single checkpoints, where an earlier one will do.
    """
    if faults := run_on_main(lambda: [*_run_faults(bound), *input_faults(bound.spec)]):
        raise InputError(faults)


def _run_faults(bound: BoundRun) -> list[Fault]:
    faults: list[Fault] = []
    for run in bound.chain():
        folder = RunFolder.of(run.spec)
        faults += [newer] if (newer := newer_fault(folder.path)) else []
        damaged = list(record_faults(folder))
        faults += damaged
        if not folder.is_trained:
            faults += _unreadable_records(folder, {fault.where for fault in damaged})
            with collect_faults(faults):
                checkpoints.require_intact(folder.path / "checkpoints")
    return faults


def _unreadable_records(folder: RunFolder, known: Container[str]) -> Iterator[Fault]:
    """Faults of what was measured before training ended, as far as they are not known."""
    records: dict[Path, Callable[[Path], Any]] = {
        folder.key_layers: recorded_layers,
        folder.geometry: recorded_geometry,
    }
    for path, read in records.items():
        try:
            if path.is_file() and str(path) not in known:
                read(path)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            problem = f"is not what a run writes (got {error_summary(error)})"
            hint = "Put it back; or delete it, then go on with --resume: it is measured anew."
            yield Fault(str(path), problem, "the file as the run wrote it", hint)


def write_training_log(path: Path, log: TrainingLog) -> None:
    """Write the log of a training as standard JSON; NaN and infinity (e.g. a gradient norm under fp16) become null."""
    write_atomically(path, TypeAdapter(TrainingLog).dump_json(log, indent=2).decode() + "\n")


def read_training_log(path: Path) -> TrainingLog:
    """Read the log of a training that is done."""
    return TypeAdapter(TrainingLog).validate_json(path.read_bytes())
