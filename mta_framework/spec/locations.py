"""Checks that the files and folders named by a spec exist, and are what they should be."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mta_framework.errors import Fault, broken_link
from mta_framework.spec.data import ROWS_EXPECTED, DatasetSection
from mta_framework.spec.document import KeyPath
from mta_framework.spec.evaluation import ScoringSection
from mta_framework.spec.evaluation_spec import EvaluationSpec
from mta_framework.spec.model_files import described_fault, model_fault, teacher_fault, tokenizer_fault
from mta_framework.spec.reading import RawSpec
from mta_framework.spec.run import RunSpec

_HINT = "Check the path; it is relative to the folder of the spec."
_RUN_HINT = "The spec.json of the run gives it: put the file back, or give the set by --data NAME=FILE."
_OPTION_HINT = "Check the path; it is relative to the working directory."
_HUB_HINT = " A model of the hub is given by hub."


def missing_locations(reading: RawSpec[RunSpec]) -> Iterator[Fault]:
    """Yield a fault for every local input that is missing or of another kind, and for every unusable output folder."""
    if reading.draft is None:
        return
    data, sets = reading.draft.data, _sets(reading.draft.evaluation)
    yield from _files(reading, {("data", "train"): data.train, ("data", "validation"): data.validation, **sets}, _HINT)
    teacher = reading.draft.teacher
    served = teacher is not None and teacher.server is not None
    for name, check in (("teacher", described_fault if served else teacher_fault), ("student", model_fault)):
        section = getattr(reading.draft, name)
        yield from _checked(check, reading, (name, "path"), section and section.path, _HINT + _HUB_HINT)
    for key_path, folder in _folders(reading.draft):
        if reading.sound(*key_path) and folder:
            yield from _output(reading.where(key_path), Path(folder), _HINT)
    yield from _checked(tokenizer_fault, reading, ("student", "tokenizer"), reading.draft.student.tokenizer, _HINT)
    if reading.sound("output_dir") and reading.sound("name") and (link := broken_link(reading.draft.folder)):
        problem, hint = f"names a link that leads nowhere (got {link})", "Remove the link, or choose another name."
        yield Fault(reading.where(("name",)), problem, "the folder of a run, new or existing", hint)


def missing_evaluation_locations(reading: RawSpec[EvaluationSpec]) -> Iterator[Fault]:
    """Yield the same faults for the spec of an evaluation."""
    if reading.draft is None:
        return
    model = reading.draft.model
    for key_path, section in _sets(reading.draft.evaluation).items():
        given = reading.where((*key_path, "path")).startswith("-")
        yield from _files(reading, {key_path: section}, _OPTION_HINT if given else _RUN_HINT)
    yield from _checked(model_fault, reading, ("model", "path"), model.path, _OPTION_HINT + _HUB_HINT)
    if reading.sound("folder"):
        yield from _output(reading.where(("folder",)), Path(reading.draft.folder), _OPTION_HINT)
    yield from _checked(tokenizer_fault, reading, ("model", "tokenizer"), model.tokenizer, _OPTION_HINT)


def _sets(section: ScoringSection | None) -> dict[KeyPath, DatasetSection]:
    return {("evaluation", "sets", name): part for name, part in section.sets.items()} if section else {}


def _files(reading: RawSpec, sections: Mapping[KeyPath, DatasetSection | None], hint: str) -> Iterator[Fault]:
    for key_path, section in sections.items():
        if section and section.path and reading.sound(*key_path, "path"):
            yield from _file(reading.where((*key_path, "path")), section.path, hint)


def _folders(spec: RunSpec) -> Iterator[tuple[KeyPath, str | None]]:
    yield ("output_dir",), spec.output_dir
    yield ("data", "cache_dir"), spec.data.cache_dir


def _checked(
    check: Callable[[Path, str, str], Fault | None], reading: RawSpec, key_path: KeyPath, path: str | None, hint: str
) -> Iterator[Fault]:
    if path and reading.sound(*key_path) and (fault := check(Path(path), reading.where(key_path), hint)):
        yield fault


def _file(where: str, path: str, hint: str) -> Iterator[Fault]:
    if not Path(path).exists():
        yield Fault(where, f"does not exist (got {path})", ROWS_EXPECTED, hint)
    elif not Path(path).is_file():
        yield Fault(where, f"is not a file (got {path})", ROWS_EXPECTED, hint)


def folder_problem(folder: Path) -> str | None:
    """Describe why a folder, new or existing, cannot be one: a file is in its place or above it; None if it can."""
    there = _existing(folder)
    if there.is_dir():
        return None
    return "is not a folder" if there == folder else f"is inside {there}, which is not a folder"


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _output(where: str, folder: Path, hint: str) -> Iterator[Fault]:
    if problem := folder_problem(folder):
        yield Fault(where, f"{problem} (got {folder})", "a folder, new or existing", hint)
    elif not os.access(_existing(folder), os.W_OK | os.X_OK):
        yield Fault(where, f"cannot be written to (got {folder})", "a folder that you may write to", hint)
