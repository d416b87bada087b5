"""Where a model or tokenizer comes from, and errors for what isn't there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from mta_framework.errors import Fault, InputError
from mta_framework.spec.evaluation_spec import ModelSection
from mta_framework.spec.student import StudentSection
from mta_framework.spec.teacher import TeacherSection

_GGUF_MAGIC = b"GGUF"


@dataclass(frozen=True)
class ModelSource:
    """A model on the hub or on this machine, and the place in the spec that names it.

    Args:
        location: Hub id, or folder.
        where: Place in the spec, for errors, e.g. ``student.path``.
        revision: On the hub; None: the main branch.
        gguf_file: Name of a GGUF file inside ``location``, or None.
    """

    location: str
    where: str
    revision: str | None = None
    gguf_file: str | None = None

    @property
    def name(self) -> str:
        """As the user wrote it."""
        return str(Path(self.location) / self.gguf_file) if self.gguf_file else self.location

    @property
    def arguments(self) -> dict[str, Any]:
        """What every ``from_pretrained`` is given: never any code from the origin."""
        given = {"revision": self.revision, "gguf_file": self.gguf_file}
        return {
            "pretrained_model_name_or_path": self.location,
            "trust_remote_code": False,
            **{name: value for name, value in given.items() if value is not None},
        }


def model_source(section: TeacherSection | StudentSection | ModelSection, where: str) -> ModelSource | None:
    """The origin that a section names; None where it names none (``run``, ``config``, ``teacher_layers``).

    Args:
        section: ``teacher``, ``student`` or ``model``.
        where: Which of these.

    Raises:
        InputError: A local path is no model folder with safetensors weights and no GGUF file.
    """
    if section.hub is not None:
        return ModelSource(section.hub, f"{where}.hub", section.revision)
    return None if section.path is None else local_model(Path(section.path), f"{where}.path")


def local_model(path: Path, where: str) -> ModelSource:
    """A model folder or GGUF file on this machine.

    Raises:
        InputError: It is neither.
    """
    if path.is_file():
        return _gguf(path, where)
    problem = _folder_fault(path)
    if problem:
        expected = "a folder with config.json and safetensors weights, or a .gguf file, is allowed"
        hint = "Give such a folder; save_pretrained of transformers writes one."
        raise InputError([Fault(where, f"{problem} (got {str(path)!r})", expected, hint)])
    return ModelSource(str(path), where)


def local_tokenizer(path: Path, where: str) -> ModelSource:
    """A tokenizer folder or GGUF file on this machine.

    Raises:
        InputError: It is neither.
    """
    if path.is_file():
        return _gguf(path, where)
    if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json")):
        problem = "has no tokenizer" if path.is_dir() else "does not exist"
        expected = "a folder with tokenizer.json, or a .gguf file, is allowed"
        hint = "Give such a folder; save_pretrained of a tokenizer writes one."
        raise InputError([Fault(where, f"{problem} (got {str(path)!r})", expected, hint)])
    return ModelSource(str(path), where)


@contextmanager
def loading(origin: ModelSource, kind: str = "causal language model") -> Iterator[None]:
    """Turn what transformers, the hub and safetensors raise into an InputError at the origin's place in the spec.

    Args:
        origin: What is loaded.
        kind: What it should be.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, StrictDataclassError, SafetensorError) as error:
        expected = f"a {kind} of transformers, without code of its own, is allowed"
        hint = "Mend the files, or give others."
        if origin.where.endswith(".hub"):
            hint = "Check the id, the revision and the connection, or download the model and give its path."
        problem = f"could not be loaded (got {origin.name!r}: {_first_line(error)})"
        raise InputError([Fault(origin.where, problem, expected, hint)]) from error


def _gguf(path: Path, where: str) -> ModelSource:
    with path.open("rb") as file:
        if file.read(len(_GGUF_MAGIC)) == _GGUF_MAGIC:
            return ModelSource(str(path.parent), where, gguf_file=path.name)
    expected = "a transformers folder or a .gguf file is allowed"
    raise InputError([Fault(where, f"is a file but no GGUF file (got {str(path)!r})", expected, "Give one of these.")])


def _folder_fault(path: Path) -> str | None:
    if not path.is_dir():
        return "does not exist"
    if not (path / "config.json").is_file():
        adapter = (path / "adapter_config.json").is_file()
        return "holds an adapter without its model: merge it first" if adapter else "has no config.json"
    if any(path.glob("*.safetensors")):
        return _config_fault(path / "config.json")
    if any(path.glob("*.bin")) or any(path.glob("*.pt")):
        return "has its weights in .bin or .pt files only, which can run code"
    return "has no weights"


def _config_fault(config: Path) -> str | None:
    try:
        fields = json.loads(config.read_text(encoding="utf-8"))
    except ValueError:
        return "has a config.json that is no JSON"
    return "has a config.json that is no object" if not isinstance(fields, dict) else None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
