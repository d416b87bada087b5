"""Checks that the files and folders named by a spec exist."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from mta_framework.errors import Fault
from mta_framework.spec.data import DatasetSection
from mta_framework.spec.document import KeyPath
from mta_framework.spec.evaluation import ScoringSection
from mta_framework.spec.evaluation_spec import EvaluationSpec
from mta_framework.spec.loading import RawSpec
from mta_framework.spec.run import RunSpec

_MEND = "Check the path; it is relative to the folder of the spec."
_MEND_OPTION = "Check the path; it is relative to the working directory."


def missing_locations(reading: RawSpec[RunSpec]) -> Iterator[Fault]:
    """Yield a fault for every local input that is missing or of another kind, and for every unusable output folder."""
    if reading.draft is None:
        return
    data, sets = reading.draft.data, _sets(reading.draft.evaluation)
    yield from _files(reading, {("data", "train"): data.train, ("data", "validation"): data.validation, **sets}, _MEND)
    for name in ("teacher", "student"):
        section = getattr(reading.draft, name)
        if section and section.path and reading.sound(name, "path"):
            yield from _model(reading.where((name, "path")), Path(section.path), _MEND)
    for key_path, folder in _folders(reading.draft):
        if reading.sound(*key_path) and folder:
            yield from _output(reading.where(key_path), Path(folder), _MEND)
    yield from _tokenizer(reading, ("student", "tokenizer"), reading.draft.student.tokenizer, _MEND)


def missing_evaluation_locations(reading: RawSpec[EvaluationSpec]) -> Iterator[Fault]:
    """Yield the same faults for the spec of an evaluation."""
    if reading.draft is None:
        return
    model = reading.draft.model
    yield from _files(reading, _sets(reading.draft.evaluation), _MEND_OPTION)
    if model.path and reading.sound("model", "path"):
        yield from _model(reading.where(("model", "path")), Path(model.path), _MEND_OPTION)
    if reading.sound("folder"):
        yield from _output(reading.where(("folder",)), Path(reading.draft.folder), _MEND_OPTION)
    yield from _tokenizer(reading, ("model", "tokenizer"), model.tokenizer, _MEND_OPTION)


def _sets(section: ScoringSection | None) -> dict[KeyPath, DatasetSection]:
    return {("evaluation", "sets", name): part for name, part in section.sets.items()} if section else {}


def _files(reading: RawSpec, sections: Mapping[KeyPath, DatasetSection | None], mend: str) -> Iterator[Fault]:
    for key_path, section in sections.items():
        if section and section.path and reading.sound(*key_path, "path"):
            yield from _file(reading.where((*key_path, "path")), section.path, mend)


def _folders(spec: RunSpec) -> Iterator[tuple[KeyPath, str | None]]:
    yield ("output_dir",), spec.output_dir
    yield ("data", "cache_dir"), spec.data.cache_dir


def _tokenizer(reading: RawSpec, key_path: KeyPath, path: str | None, mend: str) -> Iterator[Fault]:
    if path and reading.sound(*key_path) and not Path(path).is_dir():
        yield Fault(reading.where(key_path), f"is not a folder (got {path})", "a folder with tokenizer files", mend)


def _file(where: str, path: str, mend: str) -> Iterator[Fault]:
    if not Path(path).exists():
        yield Fault(where, f"does not exist (got {path})", "a JSON Lines file", mend)
    elif not Path(path).is_file():
        yield Fault(where, f"is not a file (got {path})", "a JSON Lines file", mend)


def _output(where: str, folder: Path, mend: str) -> Iterator[Fault]:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        problem = "is not a folder" if there == folder else f"is inside {there}, which is not a folder"
        yield Fault(where, f"{problem} (got {folder})", "a folder, new or existing", mend)
    elif not os.access(there, os.W_OK | os.X_OK):
        yield Fault(where, f"cannot be written to (got {folder})", "a folder that you may write to", mend)


def _model(where: str, path: Path, mend: str) -> Iterator[Fault]:
    expected = "a transformers folder with config.json, or a .gguf file"
    if not path.exists():
        yield Fault(where, f"does not exist (got {path})", expected, f"{mend} A model of the hub is given by hub.")
    elif path.is_dir() and not (path / "config.json").is_file():
        yield Fault(where, f"contains no config.json (got {path})", expected, mend)
    elif path.is_file() and path.suffix.lower() != ".gguf":
        yield Fault(where, f"is a file of another kind (got {path})", expected, mend)
