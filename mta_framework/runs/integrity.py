"""Integrity checks on an earlier attempt before it is resumed: files get lost, cut off or edited."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mta_framework.errors import Fault, InputError, collect_faults, error_message
from mta_framework.evaluation.report import newer_fault
from mta_framework.interfaces import MeasuringLayerMapper
from mta_framework.runs.build import recorded_layers
from mta_framework.runs.folder import RunFolder
from mta_framework.runs.plugin_binding import BoundRun
from mta_framework.runs.span_geometry import recorded_geometry
from mta_framework.training import checkpoints
from mta_framework.training.train import TrainingLog

_EXPORTED = ("config.json", "tokenizer.json", "tokenizer_config.json")


def require_whole(bound: BoundRun) -> None:
    """Refuse to go on with damaged files of this run or its teacher's run, or with those of a newer version.

    Raises:
        InputError: All files that are missing or damaged, except single checkpoints, where an earlier one will do.
    """
    faults: list[Fault] = []
    for run in bound.chain():
        folder = RunFolder.of(run.spec)
        faults += [newer] if (newer := newer_fault(folder.path)) else []
        if folder.is_trained:
            faults += _export_faults(folder)
        else:
            with collect_faults(faults):
                checkpoints.require_intact(folder.path / "checkpoints")
        faults += _record_faults(folder, isinstance(run.layers, MeasuringLayerMapper))
    if faults:
        raise InputError(faults)


def _record_faults(folder: RunFolder, measures: bool) -> Iterator[Fault]:
    records: dict[Path, tuple[bool, Callable[[Path], Any]]] = {
        folder.training_log: (folder.is_trained, read_training_log),
        folder.key_layers: (folder.is_trained and measures, recorded_layers),
        folder.geometry: (False, recorded_geometry),
    }
    for path, (needed, read) in records.items():
        if not needed and not path.is_file():
            continue
        try:
            read(path)
        except FileNotFoundError:
            yield Fault(str(path), "is missing", "the file as the run wrote it", _hint(folder, path))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            problem = f"is not what a run writes (got {_first_line(error)})"
            yield Fault(str(path), problem, "the file as the run wrote it", _hint(folder, path))


def read_training_log(path: Path) -> TrainingLog:
    """Read the log of a training that is done."""
    return TypeAdapter(TrainingLog).validate_json(path.read_bytes())


def _export_faults(folder: RunFolder) -> Iterator[Fault]:
    if problem := _damage(folder.student):
        expected = "the folder as the run exported it"
        yield Fault(str(folder.student), problem, expected, _hint(folder, folder.student))


def _damage(student: Path) -> str | None:
    """What is wrong with an export, apart from the values of its weights, as part of a sentence; None if intact."""
    from safetensors import SafetensorError, safe_open

    name = ""
    try:
        for name in _EXPORTED:
            json.loads((student / name).read_text(encoding="utf-8"))
        parts = {path.name for path in student.glob("*.safetensors")}
        if (index := student / "model.safetensors.index.json").is_file():
            name = index.name
            parts |= set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        for name in sorted(parts):
            with safe_open(student / name, framework="numpy"):
                pass  # opening it compares its header with its size
    except FileNotFoundError:
        return f"lacks {name}"
    except (OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError) as error:
        return f"has a damaged file (got {name}: {_first_line(error)})"
    return None if parts else "has no weights, i.e. no .safetensors file"


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'its content'}: {first['msg']}"
    return f"{type(error).__name__}: {error_message(error)}".splitlines()[0]


def _hint(folder: RunFolder, path: Path) -> str:
    # Without the export a run goes on from its last checkpoint, which is that of the last step.
    damaged = dict.fromkeys(item for item in (path, folder.student) if item.exists())
    listed = " and ".join(map(str, damaged))
    return f"Put it back; or delete {listed}, then go on with --resume: it is made anew from the last checkpoint."
