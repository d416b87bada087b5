"""The folder of a run: what lies where, and who may write to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mta_framework.errors import MTAError, RunError, explain_disk_full, writing_to
from mta_framework.spec.document import read_document
from mta_framework.spec.evaluation_spec import EvaluationSpec
from mta_framework.spec.input_fields import absolute_document, portable_document
from mta_framework.spec.run import RunSpec
from mta_framework.storage import write_json


@dataclass(frozen=True)
class RunFolder:
    """Everything that a run writes, under ``output_dir/name``.

    ``spec.json`` (resolved), ``inputs.json`` (digests of data and models), ``key-layers.json`` (where they are
    measured), ``geometry.json`` (of spans, with an alignment), ``plugin-files.json`` (digests of files given by ``-p``,
    at each start), ``checkpoints/``, ``tensorboard/``, ``training.json`` (log), ``student/`` (the export; it exists
    once training is done), ``predictions/``, ``report.json``, ``report.md``, ``report.html``, ``files.json`` (sizes
    and digests of export, log, records and report).

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
    def inputs(self) -> Path:
        """Digests of the data sets and models that the run began with; written before anything else but the spec."""
        return self.path / "inputs.json"

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


@contextmanager
def locked(folder: Path, work: str, hint: str) -> Iterator[None]:
    """Create a folder, and lock it against other processes.

    Args:
        folder: Folder to create and lock.
        work: What is done in it, for the error, e.g. ``this run``.
        hint: What to do where it cannot be written to.

    Raises:
        RunError: The folder cannot be written to, or another process holds the lock; a dead process holds none.
    """
    with writing_to(folder, hint):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            held = FileLock(folder / ".lock").acquire(blocking=False)
        except Timeout as error:
            raise RunError(f"{folder}: another process is at work on {work}; wait for it, then resume") from error
    with held:
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process is at work in a folder; a dead process is not."""
    if not (folder / ".lock").is_file():
        return False
    try:
        with FileLock(folder / ".lock").acquire(blocking=False):
            return False
    except Timeout:
        return True


@contextmanager
def open_run_folder(
    spec: RunSpec | EvaluationSpec, require_free: Callable[[], None], contents: Mapping[str, Mapping[str, str]]
) -> Iterator[None]:
    """Create or reopen the folder, lock it against other processes, and write spec and inputs into it.

    Args:
        spec: Resolved spec.
        require_free: Raises where the folder holds something else; called when no other process can change it.
        contents: Content of the inputs, by dotted field.

    Raises:
        RunError: The folder cannot be written to, or another process holds the lock; a dead process holds none.
        InputError: From ``require_free``.
    """
    folder = RunFolder.of(spec)
    hint = "set output_dir" if isinstance(spec, RunSpec) else "choose another by -o"
    with locked(folder.path, "this run", hint), explain_disk_full(folder.path):
        require_free()
        save_spec(spec)
        write_json(folder.inputs, contents)
        with _explain_deletion(folder):
            yield


@contextmanager
def _explain_deletion(folder: RunFolder) -> Iterator[None]:
    """Raise a ``RunError`` where the folder was deleted inside, whatever else that led to."""
    problem = f"{folder.path}: was deleted while this run was at work. Run it again, from the beginning"
    try:
        yield
    except MTAError:
        raise
    except Exception as error:  # each library raises one of its own
        if folder.spec_file.is_file():
            raise
        raise RunError(problem) from error
    if not folder.spec_file.is_file():
        raise RunError(problem)


def save_spec(spec: RunSpec | EvaluationSpec) -> None:
    """Write the resolved spec into its folder, in a form that survives when the whole project is moved."""
    folder = RunFolder.of(spec)
    write_json(folder.spec_file, portable_document(spec, folder.path))


def saved_spec(spec: RunSpec | EvaluationSpec, folder: RunFolder) -> dict[str, Any]:
    """Read the document that ``save_spec`` wrote, with absolute paths.

    Args:
        spec: A spec of the kind that is expected there.
        folder: Folder of the run or evaluation.

    Raises:
        InputError: The file does not exist, or holds no JSON object.
    """
    return absolute_document(type(spec), read_document(folder.spec_file)[0], folder.path)
