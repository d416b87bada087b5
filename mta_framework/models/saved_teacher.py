"""Reads the folder of a teacher without weights: its identity, its head's post-processing, its dtype. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mta_framework.errors import Fault, InputError
from mta_framework.spec.model_files import SAVED_TEACHER, is_saved_teacher
from mta_framework.storage import MANIFEST, damaged_files, json_digest

_LARGE_FILES = ".safetensors"
_HINT = "Copy the folder again, or have it made again where the teacher's weights are: mta cache SPEC."


class SavedTeacher(BaseModel):
    """What ``teacher.json`` says of a teacher.

    Args:
        name: Hub id, or name of the model folder, for people.
        identity: What tells this teacher from others, of which ``digest`` is the digest.
        dtype: Dtype that the teacher was loaded in.
        scale: Factor on the logits.
        softcap: Bound of the cap on the logits, or None.
        norm: Name of the final norm within the model, or None.
        projection: Name of the projection behind it, or None.
        versions: Versions of the packages that computed the states.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    name: str
    identity: dict[str, Any]
    dtype: Literal["float32", "bfloat16", "float16"]
    scale: float
    softcap: float | None
    norm: str | None
    projection: str | None
    versions: dict[str, str]

    @property
    def digest(self) -> str:
        """The digest of ``identity``."""
        return json_digest(self.identity)


def read_saved_teacher(folder: Path, where: str, contents: bool = False) -> SavedTeacher:
    """Read the folder of a teacher without weights, and check that its files are as they were written.

    Args:
        folder: The folder.
        where: Field of the spec that names it, for errors.
        contents: Whether the content of the files of tensors is checked, too, and not only their sizes.

    Raises:
        InputError: Files are missing or damaged; each is named.
    """
    damaged = [*damaged_files(folder, contents=False)] or [*damaged_files(folder, _checked_names(folder, contents))]
    if damaged:
        raise InputError(_fault(folder / name, where, problem) for name, problem in damaged)
    try:
        return SavedTeacher.model_validate_json((folder / SAVED_TEACHER).read_bytes())
    except (ValidationError, OSError) as error:
        problem = f"is of another version of the framework, or damaged ({str(error).splitlines()[0]})"
        raise InputError([_fault(folder / SAVED_TEACHER, where, problem)]) from error


def saved_dtype(path: str | None, where: str) -> str | None:
    """Return the dtype of a teacher without weights; None for a path of anything else."""
    if path is None or not is_saved_teacher(Path(path)):
        return None
    return read_saved_teacher(Path(path), where).dtype


def require_weights(path: str | None, where: str, purpose: str) -> None:
    """Refuse a path that is the folder of a teacher without weights.

    Args:
        path: Path of the teacher; None where it is named in another way.
        where: Field of the spec that names it.
        purpose: What needs the weights, as a noun phrase.

    Raises:
        InputError: The folder has no weights.
    """
    if path is not None and is_saved_teacher(Path(path)):
        problem = f"has no weights, which are needed for {purpose} (got {path})"
        hint = "Give the teacher itself, or leave out what needs it."
        raise InputError([Fault(where, problem, "a model with weights", hint)])


def _checked_names(folder: Path, contents: bool) -> tuple[str, ...]:
    names = (path.name for path in sorted(folder.iterdir()) if path.name != MANIFEST)
    return tuple(name for name in names if contents or not name.endswith(_LARGE_FILES))


def _fault(file: Path, where: str, problem: str) -> Fault:
    return Fault(where, f"{problem} (got {file})", "the file as it was written", _HINT)
