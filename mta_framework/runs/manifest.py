"""The manifest of a run, ``files.json``: digests of what training leaves, checked wherever one of the files is reused.

``mta run`` checks the run and those of its teachers, ``mta evaluate`` and ``mta push`` the exported student, and
``mta compare`` the report. No torch.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from mta_framework.errors import Fault
from mta_framework.runs.folder import RunFolder
from mta_framework.spec.evaluation_spec import EvaluationSpec
from mta_framework.spec.input_fields import model_inputs
from mta_framework.spec.run import RunSpec
from mta_framework.storage import MANIFEST, bring_to_disk, damaged_files, inner_files, write_manifest


def publish_student(folder: RunFolder, unpublished: Path) -> None:
    """Move an exported student to its name, with which training is done; the manifest is complete by then.

    Args:
        folder: Folder of the run, with the log and all other records of the training.
        unpublished: The export, in the same folder under another name.
    """
    try:
        exported = {f"{folder.student.name}/{name}": path for name, path in inner_files(unpublished).items()}
        records = {path.name: path for path in _records(folder) if path.is_file()}
        write_manifest(folder.path, exported | records)
        os.replace(unpublished, folder.student)
        bring_to_disk(folder.path, inside=False)
    finally:
        shutil.rmtree(unpublished, ignore_errors=True)  # it may be what fills the disk


def record_faults(folder: RunFolder) -> Iterator[Fault]:
    """Yield a fault for every file that training left and that is not as it was written.

    Before training is done, only the key layers are there for good.
    """
    if folder.is_trained:
        names = (f"{folder.student.name}/", *(path.name for path in _records(folder)))
    else:
        names = (folder.key_layers.name,) if folder.key_layers.is_file() and (folder.path / MANIFEST).is_file() else ()
    yield from _faults(folder, names)


def export_faults(folder: RunFolder, contents: bool = True) -> Iterator[Fault]:
    """Yield a fault for every file of an exported student that is not as it was written.

    Args:
        folder: Folder of the run.
        contents: Whether contents are read, and not only sizes.
    """
    yield from _faults(folder, (f"{folder.student.name}/",), contents)


def incomplete_export_faults(path: Path) -> list[Fault]:
    """The faults of an exported student that lacks files, or has some of another size; none for other models.

    Args:
        path: Folder of a model, or of something else.
    """
    folder = _exporting_run(path)
    return [] if folder is None else list(export_faults(folder, contents=False))


def input_faults(spec: RunSpec | EvaluationSpec) -> Iterator[Fault]:
    """Yield the faults of every exported student that a spec names by its path, inside of its run folder."""
    sections = [section for _, section in model_inputs(spec)]
    named = (getattr(section, name, None) for section in sections for name in ("path", "tokenizer"))
    for path in dict.fromkeys(Path(path) for path in named if path):
        if (folder := _exporting_run(path)) is not None:
            yield from export_faults(folder)


def _exporting_run(path: Path) -> RunFolder | None:
    """The folder of the run that exported a student, inside of which it lies; None for any other path."""
    folder = RunFolder(path.parent)
    return folder if path == folder.student and (folder.path / MANIFEST).is_file() else None


def _records(folder: RunFolder) -> tuple[Path, ...]:
    return folder.training_log, folder.key_layers, folder.geometry


def _faults(folder: RunFolder, names: tuple[str, ...], contents: bool = True) -> Iterator[Fault]:
    for name, problem in damaged_files(folder.path, names, contents) if names else ():
        path = folder.path / name
        yield Fault(str(path), problem, "the file as the run wrote it", _hint(folder, path))


def _hint(folder: RunFolder, path: Path) -> str:
    # Without the export a run goes on from its last checkpoint, which is that of the last step.
    in_export = folder.student in path.parents or not path.exists()
    damaged = dict.fromkeys(item for item in (folder.student if in_export else path, folder.student) if item.exists())
    listed = " and ".join(map(str, damaged))
    return f"Put it back; or delete {listed}, then resume that run: it is made anew from the last checkpoint."
