"""The folder of a run: its files, and whether a run may write to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mta_framework.errors import Fault, InputError, RunError, explain_disk_full
from mta_framework.spec.document import read_document
from mta_framework.spec.effects import differences
from mta_framework.spec.evaluation_spec import EvaluationSpec
from mta_framework.spec.run import RunSpec
from mta_framework.storage import write_json

_OUTPUTS = ("checkpoints", "key-layers.json", "training.json", "student", "predictions", "report.json")
"""Files and directories that only a run writes."""


@dataclass(frozen=True)
class RunFolder:
    """Everything that a run writes, under ``output_dir/name``.

    ``spec.json`` (resolved), ``key-layers.json`` (where they are measured), ``geometry.json`` (of spans, with an
    alignment), ``checkpoints/``, ``tensorboard/``, ``training.json`` (log), ``student/`` (the export; it exists once
    training is done), ``predictions/``, ``report.json``, ``report.md``, ``report.html``.

    Args:
        path: The directory.
    """

    path: Path

    @classmethod
    def of(cls, spec: RunSpec | EvaluationSpec) -> RunFolder:
        """The folder of this spec's run or evaluation, existing or not."""
        return cls(Path(spec.folder))

    @property
    def spec_file(self) -> Path:
        """The resolved spec."""
        return self.path / "spec.json"

    @property
    def student(self) -> Path:
        """The exported student, a plain transformers folder that appears complete when training is done."""
        return self.path / "student"

    @property
    def key_layers(self) -> Path:
        """Similarity of layers, where it was measured to choose the key layers, and the choice."""
        return self.path / "key-layers.json"

    @property
    def geometry(self) -> Path:
        """Similarities of spans in teacher and student, before and after training."""
        return self.path / "geometry.json"

    @property
    def training_log(self) -> Path:
        """The training log; written just before the export."""
        return self.path / "training.json"

    @property
    def predictions(self) -> Path:
        """The responses of each model, with their scores."""
        return self.path / "predictions"

    @property
    def is_trained(self) -> bool:
        """Whether training is done."""
        return self.student.is_dir()

    @property
    def is_finished(self) -> bool:
        """Whether the run is complete: its report is written last."""
        return self.is_trained and (self.path / "report.json").is_file()


def require_free(spec: RunSpec, resume: bool) -> None:
    """Refuse a folder that holds another run, before anything slow starts.

    Args:
        spec: Spec of the run.
        resume: Whether to go on with a run of the same spec.

    Raises:
        InputError: The folder holds a run and ``resume`` is not set, or that run was begun by another spec, or by an
            unknown one.
    """
    folder = RunFolder.of(spec)
    if not folder.spec_file.is_file():
        _require_empty(folder)
        return
    if not resume:
        problem = f"already holds a run (got {folder.path})"
        raise InputError([Fault("name", problem, "a name without a run", "Choose another, or go on with --resume.")])
    require_same(spec, folder)


@contextmanager
def open_run_folder(spec: RunSpec | EvaluationSpec) -> Iterator[None]:
    """Create or reopen the folder, write the resolved spec into it, and lock it against other processes.

    Raises:
        RunError: The folder cannot be written to, or another process holds the lock; a dead process holds none.
    """
    folder = RunFolder.of(spec)
    hint = "set output_dir" if isinstance(spec, RunSpec) else "choose another by -o"
    lock = FileLock(folder.path / ".lock")
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        held = lock.acquire(blocking=False)
    except Timeout as error:
        raise RunError(f"{folder.path}: another process is at work on this run; wait for it, then resume") from error
    except OSError as error:
        raise RunError(f"cannot write to {folder.path} ({error.strerror}); {hint}") from error
    with held, explain_disk_full(folder.path):
        write_json(folder.spec_file, spec.model_dump(mode="json"))
        yield


def _require_empty(folder: RunFolder) -> None:
    outputs = [name for name in _OUTPUTS if (folder.path / name).exists()]
    if outputs:
        problem = f"is missing, and the folder holds what a run left (got {', '.join(outputs)})"
        hint = "Put it back, choose another name for the run, or delete the folder."
        raise InputError([Fault(str(folder.spec_file), problem, "the spec that the run began with", hint)])


def require_same(spec: RunSpec, folder: RunFolder) -> None:
    """Refuse to go on with a run that another spec began; fields that do not affect the weights may differ.

    Raises:
        InputError: All fields that differ, or the run's spec.json cannot be read.
    """
    began, _ = read_document(folder.spec_file)
    now_is = spec.model_dump(mode="json")
    faults = [
        Fault(
            where,
            f"is not what the run in {folder.path} began with (got {json.dumps(now)})",
            f"{json.dumps(then)} as in its spec.json",
            "Set it back, choose another name, or delete the folder." + _hint(where, began, now_is),
        )
        for where, then, now in differences(RunSpec, began, now_is, ("weights",))
    ]
    if faults:
        raise InputError(faults)


def require_same_evaluation(spec: EvaluationSpec) -> None:
    """Refuse a folder that holds something else, whose predictions would be overwritten.

    Seeds, metrics and sets may differ, but sets of the same name have to be the same.

    Raises:
        InputError: It holds a run, or another evaluation: all fields that differ.
    """
    folder = RunFolder.of(spec)
    if not folder.spec_file.is_file():
        return
    began, faults = read_document(folder.spec_file)
    if "student" in began:
        problem, hint = f"already holds a run (got {folder.path})", "Choose another."
        raise InputError([Fault("-o", problem, "a folder without one", hint)])
    for where, then, now in differences(EvaluationSpec, began, spec.model_dump(mode="json"), ("weights", "responses")):
        added_or_left_out = None in (then, now) and isinstance(then or now, dict)
        if not (where.startswith("evaluation.sets.") and added_or_left_out):
            problem = f"is not what the evaluation in {folder.path} began with (got {json.dumps(now)})"
            expected = f"{json.dumps(then)} as in its spec.json"
            faults.append(Fault(where, problem, expected, "Set it back, or choose another folder with -o."))
    if faults:
        raise InputError(faults)


def _hint(where: str, *documents: Any) -> str:
    """A hint for a field that only one of the documents has, perhaps because another version wrote it."""
    for document in documents:
        for key in where.split("."):
            if key not in document:
                return " If there is no such field in this version, go on with the one that began the run."
            document = document[key]
    return ""
