"""Checks that the files and folders which a spec names are there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mta_framework.errors import Fault
from mta_framework.spec.document import Place
from mta_framework.spec.loading import RawSpec
from mta_framework.spec.sections import RunSpec

_MEND = "Check the path; it is relative to the folder of the spec."


def missing_locations(reading: RawSpec) -> Iterator[Fault]:
    """One fault for every local input that is absent or of the wrong kind, and every output that can't be a folder."""
    if reading.draft is None:
        return
    for place, path in _files(reading.draft):
        if reading.sound(*place):
            yield from _file(reading.where(place), path)
    for place, path in _models(reading.draft):
        if reading.sound(*place):
            yield from _model(reading.where(place), Path(path))
    for place, folder in _folders(reading.draft):
        if reading.sound(*place) and folder:
            yield from _output(reading.where(place), Path(folder))
    tokenizer = reading.draft.student.tokenizer
    if tokenizer and reading.sound("student", "tokenizer") and not Path(tokenizer).is_dir():
        yield Fault(
            reading.where(("student", "tokenizer")),
            f"is not a folder (got {tokenizer})",
            "a folder with tokenizer files",
            _MEND,
        )


def _files(spec: RunSpec) -> Iterator[tuple[Place, str]]:
    for name in ("train", "validation"):
        section = getattr(spec.data, name)
        if section and section.path:
            yield ("data", name, "path"), section.path
    for name, section in (spec.evaluation.sets if spec.evaluation else {}).items():
        if section.path:
            yield ("evaluation", "sets", name, "path"), section.path


def _models(spec: RunSpec) -> Iterator[tuple[Place, str]]:
    if spec.teacher and spec.teacher.path:
        yield ("teacher", "path"), spec.teacher.path
    if spec.student.path:
        yield ("student", "path"), spec.student.path


def _folders(spec: RunSpec) -> Iterator[tuple[Place, str | None]]:
    yield ("output_dir",), spec.output_dir
    yield ("data", "cache_dir"), spec.data.cache_dir


def _file(where: str, path: str) -> Iterator[Fault]:
    if not Path(path).exists():
        yield Fault(where, f"does not exist (got {path})", "a JSON Lines file", _MEND)
    elif not Path(path).is_file():
        yield Fault(where, f"is not a file (got {path})", "a JSON Lines file", _MEND)


def _output(where: str, folder: Path) -> Iterator[Fault]:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        wrong = "is not a folder" if there == folder else f"lies in {there}, which is not a folder"
        yield Fault(where, f"{wrong} (got {folder})", "a folder, new or old", _MEND)
    elif not os.access(there, os.W_OK | os.X_OK):
        yield Fault(where, f"cannot be written to (got {folder})", "a folder that you may write to", _MEND)


def _model(where: str, path: Path) -> Iterator[Fault]:
    allowed = "a transformers folder with config.json, or a .gguf file"
    if not path.exists():
        yield Fault(where, f"does not exist (got {path})", allowed, f"{_MEND} Models of the hub go under hub.")
    elif path.is_dir() and not (path / "config.json").is_file():
        yield Fault(where, f"holds no config.json (got {path})", allowed, _MEND)
    elif path.is_file() and path.suffix.lower() != ".gguf":
        yield Fault(where, f"is a file of another kind (got {path})", allowed, _MEND)
