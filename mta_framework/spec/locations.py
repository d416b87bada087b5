"""Checks that the files and folders which a spec names are there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from mta_framework.errors import Fault
from mta_framework.spec.data import DatasetSection
from mta_framework.spec.document import Place
from mta_framework.spec.evaluation import ScoringSection
from mta_framework.spec.evaluation_spec import EvaluationSpec
from mta_framework.spec.loading import RawSpec
from mta_framework.spec.run import RunSpec

_MEND = "Check the path; it is relative to the folder of the spec."
_MEND_OPTION = "Check the path; it is relative to the folder that you are in."


def missing_locations(reading: RawSpec[RunSpec]) -> Iterator[Fault]:
    """One fault for every local input that is absent or of the wrong kind, and every output that can't be a folder."""
    if reading.draft is None:
        return
    data, sets = reading.draft.data, _sets(reading.draft.evaluation)
    yield from _files(reading, {("data", "train"): data.train, ("data", "validation"): data.validation, **sets}, _MEND)
    for name in ("teacher", "student"):
        section = getattr(reading.draft, name)
        if section and section.path and reading.sound(name, "path"):
            yield from _model(reading.where((name, "path")), Path(section.path), _MEND)
    for place, folder in _folders(reading.draft):
        if reading.sound(*place) and folder:
            yield from _output(reading.where(place), Path(folder), _MEND)
    yield from _tokenizer(reading, ("student", "tokenizer"), reading.draft.student.tokenizer, _MEND)


def missing_evaluation_locations(reading: RawSpec[EvaluationSpec]) -> Iterator[Fault]:
    """The same for an evaluation by itself."""
    if reading.draft is None:
        return
    model = reading.draft.model
    yield from _files(reading, _sets(reading.draft.evaluation), _MEND_OPTION)
    if model.path and reading.sound("model", "path"):
        yield from _model(reading.where(("model", "path")), Path(model.path), _MEND_OPTION)
    if reading.sound("folder"):
        yield from _output(reading.where(("folder",)), Path(reading.draft.folder), _MEND_OPTION)
    yield from _tokenizer(reading, ("model", "tokenizer"), model.tokenizer, _MEND_OPTION)


def _sets(section: ScoringSection | None) -> dict[Place, DatasetSection]:
    return {("evaluation", "sets", name): part for name, part in section.sets.items()} if section else {}


def _files(reading: RawSpec, sections: Mapping[Place, DatasetSection | None], mend: str) -> Iterator[Fault]:
    for place, section in sections.items():
        if section and section.path and reading.sound(*place, "path"):
            yield from _file(reading.where((*place, "path")), section.path, mend)


def _folders(spec: RunSpec) -> Iterator[tuple[Place, str | None]]:
    yield ("output_dir",), spec.output_dir
    yield ("data", "cache_dir"), spec.data.cache_dir


def _tokenizer(reading: RawSpec, place: Place, path: str | None, mend: str) -> Iterator[Fault]:
    if path and reading.sound(*place) and not Path(path).is_dir():
        yield Fault(reading.where(place), f"is not a folder (got {path})", "a folder with tokenizer files", mend)


def _file(where: str, path: str, mend: str) -> Iterator[Fault]:
    if not Path(path).exists():
        yield Fault(where, f"does not exist (got {path})", "a JSON Lines file", mend)
    elif not Path(path).is_file():
        yield Fault(where, f"is not a file (got {path})", "a JSON Lines file", mend)


def _output(where: str, folder: Path, mend: str) -> Iterator[Fault]:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        problem = "is not a folder" if there == folder else f"lies in {there}, which is not a folder"
        yield Fault(where, f"{problem} (got {folder})", "a folder, new or old", mend)
    elif not os.access(there, os.W_OK | os.X_OK):
        yield Fault(where, f"cannot be written to (got {folder})", "a folder that you may write to", mend)


def _model(where: str, path: Path, mend: str) -> Iterator[Fault]:
    expected = "a transformers folder with config.json, or a .gguf file"
    if not path.exists():
        yield Fault(where, f"does not exist (got {path})", expected, f"{mend} Models of the hub go under hub.")
    elif path.is_dir() and not (path / "config.json").is_file():
        yield Fault(where, f"holds no config.json (got {path})", expected, mend)
    elif path.is_file() and path.suffix.lower() != ".gguf":
        yield Fault(where, f"is a file of another kind (got {path})", expected, mend)
