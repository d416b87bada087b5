"""Fields that say where an input lies: results depend on its content, which is compared instead of the path."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from mta_framework.spec.data import DatasetSection
from mta_framework.spec.document import KeyPath
from mta_framework.spec.evaluation_spec import EvaluationSpec, ModelSection
from mta_framework.spec.run import RunSpec
from mta_framework.spec.schema_text import branches, property_at
from mta_framework.spec.section import Section, schema_of
from mta_framework.spec.student import StudentSection
from mta_framework.spec.teacher import TeacherSection

Kind = Literal["path", "revision"]
"""A path on this machine, or a branch, tag or commit on the hub."""

ModelInput = TeacherSection | StudentSection | ModelSection


def data_inputs(spec: RunSpec | EvaluationSpec) -> Iterator[tuple[str, DatasetSection]]:
    """Yield the dotted name and the section of each data set of a spec."""
    if isinstance(spec, RunSpec):
        yield "data.train", spec.data.train
        if spec.data.validation is not None:
            yield "data.validation", spec.data.validation
    if spec.evaluation is not None:
        yield from ((f"evaluation.sets.{name}", part) for name, part in spec.evaluation.sets.items())


def model_inputs(spec: RunSpec | EvaluationSpec) -> Iterator[tuple[str, ModelInput]]:
    """Yield the name and the section of each model of a spec."""
    if isinstance(spec, EvaluationSpec):
        yield "model", spec.model
        return
    yield "student", spec.student
    yield from spec.teacher_sections.items()


def map_locations(
    spec: type[Section], value: Any, change: Callable[[KeyPath, Kind, str], Any], key_path: KeyPath = ()
) -> Any:
    """Replace every path and revision of a spec's document.

    Args:
        spec: Class of the spec.
        value: The document; it is not changed.
        change: Gets key path, kind and value, and returns the new value.
        key_path: Key path of ``value``, where it is a part of the document.
    """
    if isinstance(value, dict):
        return {key: map_locations(spec, inner, change, (*key_path, key)) for key, inner in value.items()}
    kind = _kind(spec, key_path) if isinstance(value, str) else None
    return change(key_path, kind, value) if kind else value


def without_locations(spec: type[Section], document: dict[str, Any]) -> dict[str, Any]:
    """The document with the same text in place of every path, and without revisions."""
    masked: dict[str, Any] = map_locations(spec, document, lambda _, kind, __: "a path" if kind == "path" else None)
    return masked


def portable_document(spec: RunSpec | EvaluationSpec, folder: Path) -> dict[str, Any]:
    """The document of a resolved spec that is saved in ``folder``, and stays right where a project is moved as a whole.

    Paths are relative to ``folder`` unless the two have nothing but the root of the file system in common.
    """

    def change(_: KeyPath, kind: Kind, value: str) -> str:
        return _relative(Path(value), folder.absolute()) if kind == "path" else value

    document: dict[str, Any] = map_locations(type(spec), spec.model_dump(mode="json"), change)
    return document


def absolute_document(spec: type[Section], document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The document of a spec that was saved in ``folder``, with absolute paths."""

    def change(_: KeyPath, kind: Kind, value: str) -> str:
        return os.path.normpath(folder.absolute() / value) if kind == "path" else value

    resolved: dict[str, Any] = map_locations(spec, document, change)
    return resolved


def _relative(path: Path, folder: Path) -> str:
    try:
        shared = Path(os.path.commonpath([path, folder]))
    except ValueError:  # on two drives, or relative
        return str(path)
    return str(path) if shared == Path(shared.anchor) else Path(os.path.relpath(path, folder)).as_posix()


@functools.cache
def _kind(spec: type[Section], key_path: KeyPath) -> Kind | None:
    schema = schema_of(spec)
    node = property_at(schema, key_path)
    marks = [branch.get("locates") for branch in branches(schema, node)] if node else []
    return next((mark for mark in marks if mark), None)
