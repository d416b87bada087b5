"""Sources of models and tokenizers: the hub, a folder or a GGUF file, with the errors for those that do not load."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mta_framework.errors import Fault, InputError, MTAError, first_line
from mta_framework.models.saved_teacher import read_saved_teacher
from mta_framework.spec.evaluation_spec import ModelSection
from mta_framework.spec.model_files import described_fault, is_saved_teacher, model_fault, tokenizer_fault
from mta_framework.spec.student import StudentSection
from mta_framework.spec.teacher import TeacherSection


@dataclass(frozen=True)
class ModelSource:
    """A model on the hub or on this machine, and the field of the spec that names it.

    Args:
        location: Hub id, or path of a local folder.
        where: Field of the spec that names it, for errors, e.g. ``student.path``.
        revision: Branch, tag or commit on the hub; None means the main branch.
        gguf_file: Name of a GGUF file inside ``location``; None for a transformers folder.
        has_weights: Whether the whole model is there, and not only what a teacher cache keeps of it, or configuration
            and tokenizer of one behind a server.
    """

    location: str
    where: str
    revision: str | None = None
    gguf_file: str | None = None
    has_weights: bool = True

    @property
    def name(self) -> str:
        """Hub id or path, as the spec gives it."""
        return str(Path(self.location) / self.gguf_file) if self.gguf_file else self.location

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of ``from_pretrained``, which never allow code of the model's repository to run."""
        given = {"revision": self.revision, "gguf_file": self.gguf_file}
        return {
            "pretrained_model_name_or_path": self.location,
            "trust_remote_code": False,
            **{name: value for name, value in given.items() if value is not None},
        }


def model_source(section: TeacherSection | StudentSection | ModelSection, where: str) -> ModelSource | None:
    """Return the source that a section names; None for sections with ``run``, ``config`` or ``teacher_layers``.

    Args:
        section: Section ``teacher``, ``student`` or ``model`` of a spec.
        where: Name of the section.

    Raises:
        InputError: The local path is neither a model folder with safetensors weights nor a GGUF file, or it is the
            folder of a teacher without weights, and damaged.
    """
    is_served = isinstance(section, TeacherSection) and section.server is not None
    if section.hub is not None:
        return ModelSource(section.hub, f"{where}.hub", section.revision, has_weights=not is_served)
    if section.path is None:
        return None
    if is_served:
        if fault := described_fault(Path(section.path), f"{where}.path"):
            raise InputError([fault])
        return ModelSource(section.path, f"{where}.path", has_weights=False)
    if isinstance(section, TeacherSection) and is_saved_teacher(Path(section.path)):
        read_saved_teacher(Path(section.path), f"{where}.path")
        return ModelSource(section.path, f"{where}.path", has_weights=False)
    return local_model(Path(section.path), f"{where}.path")


def local_model(path: Path, where: str) -> ModelSource:
    """Return the source of a model folder or GGUF file on this machine.

    Args:
        path: Path of the folder or file.
        where: Field of the spec that names it, for errors.

    Raises:
        InputError: The path is neither a model folder with safetensors weights nor a GGUF file.
    """
    if fault := model_fault(path, where):
        raise InputError([fault])
    if path.is_file():
        return ModelSource(str(path.parent), where, gguf_file=path.name)
    return ModelSource(str(path), where)


def local_tokenizer(path: Path, where: str) -> ModelSource:
    """Return the source of a tokenizer folder on this machine.

    Args:
        path: Path of the folder.
        where: Field of the spec that names it, for errors.

    Raises:
        InputError: The path is not a folder with the files of a tokenizer.
    """
    if fault := tokenizer_fault(path, where):
        raise InputError([fault])
    return ModelSource(str(path), where)


@contextmanager
def loading_faults_at(source: ModelSource, kind: str = "causal language model") -> Iterator[None]:
    """Turn exceptions of transformers, the hub and safetensors into an ``InputError`` about the source's field.

    Args:
        source: Source that is loaded inside the block.
        kind: Kind of object that is expected there, for the message.
    """
    try:
        yield
    except MTAError:
        raise
    except Exception as error:  # of a dozen unrelated classes, for files that anybody may have written
        expected = f"a {kind} of transformers that needs no code of its own"
        hint = "Repair the files, or give others."
        if source.where.endswith(".hub"):
            hint = "Check the id, the revision and the connection, or download the model and give its path."
        problem = f"could not be loaded (got {source.name!r}: {first_line(error)})"
        raise InputError([Fault(source.where, problem, expected, hint)]) from error
