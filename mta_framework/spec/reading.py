"""Reads a spec from a file or a command line, with every structural fault at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic

from pydantic import ValidationError

from mta_framework.errors import Fault, InputError
from mta_framework.spec.document import KeyPath, read_document
from mta_framework.spec.overrides import override
from mta_framework.spec.repair import SpecT, repaired, validate
from mta_framework.spec.run import RunSpec
from mta_framework.spec.section import Section, schema_of
from mta_framework.spec.validation_faults import faults_of, listed

_LONGEST_NAME = 200
"""Characters of a dotted name that messages show."""


@dataclass(frozen=True)
class RawSpec(Generic[SpecT]):
    """A spec as read, valid or not.

    Args:
        path: The absolute path of the file; without a file, the folder that relative paths are relative to.
        raw: The document after overrides, as the user wrote it.
        spec: The validated spec with absolute paths; None if there are faults.
        faults: All structural faults.
        draft: The spec with faulty values replaced, for checks of the remaining fields; None if it could not be made.
        unsound: Key paths of the draft whose values were replaced.
        given: Key paths that the command line set -> the option's name; None: their dotted name after ``--set``.
    """

    path: Path
    raw: dict[str, Any]
    spec: SpecT | None
    faults: tuple[Fault, ...]
    draft: SpecT | None = None
    unsound: frozenset[KeyPath] = field(default_factory=frozenset)
    given: Mapping[KeyPath, str | None] = field(default_factory=dict)

    def where(self, key_path: KeyPath) -> str:
        """The name of a key path in error messages, which shows whether the command line set it."""
        name = ".".join(map(str, key_path)) or str(self.path)
        name = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
        setting = next((given for given in self.given if key_path[: len(given)] == given), None)
        return name if setting is None else self.given[setting] or f"--set {name}"

    def sound(self, *key_path: str | int) -> bool:
        """Whether the draft's value at ``key_path``, including list entries, is the one that the user gave."""
        above = any(key_path[:length] in self.unsound for length in range(len(key_path) + 1))
        return not above and key_path not in self._lists_with_faults

    @cached_property
    def _lists_with_faults(self) -> frozenset[KeyPath]:
        """Key paths below which an entry of a list, or of a list in it, is unsound.

        A section is valid even if one of its fields is not, so only list entries count.
        """
        return frozenset(
            key_path[:length]
            for key_path in self.unsound
            for length in range(len(key_path))
            if all(isinstance(key, int) for key in key_path[length:])
        )


@dataclass(frozen=True)
class _TeacherReading(RawSpec[RunSpec]):
    """A spec with several teachers, as one of them sees it: its section is that of ``teacher``."""

    whole: RawSpec[RunSpec] | None = None
    name: str = ""

    def where(self, key_path: KeyPath) -> str:
        assert self.whole is not None
        return self.whole.where(self._moved(key_path))

    def sound(self, *key_path: str | int) -> bool:
        assert self.whole is not None
        return self.whole.sound(*self._moved(key_path))

    def _moved(self, key_path: KeyPath) -> KeyPath:
        return ("teachers", self.name, *key_path[1:]) if key_path[:1] == ("teacher",) else key_path


def teacher_readings(reading: RawSpec[RunSpec]) -> dict[str, RawSpec[RunSpec]]:
    """A spec as each of several teachers sees it, by its name; with one teacher, or none, the spec itself under ''."""
    draft = reading.draft
    if draft is None or not draft.teachers:
        return {"": reading}
    return {
        name: _TeacherReading(
            reading.path,
            {**reading.raw, "teacher": reading.raw["teachers"].get(name)},
            None,
            (),
            draft.with_teacher(name),
            whole=reading,
            name=name,
        )
        for name in draft.teachers
    }


def read_spec(path: Path, overrides: Sequence[str] = ()) -> RawSpec[RunSpec]:
    """Read and validate a spec; plugin names and options are left to binding.

    Args:
        path: JSON file in UTF-8.
        overrides: ``KEY=VALUE`` settings, as after ``--set``.

    Returns:
        The spec, or all its faults; nothing is raised for them.
    """
    try:
        path = path.expanduser().resolve()
        raw, repetitions = read_document(path)
    except InputError as error:
        return RawSpec(path, {}, None, tuple(error.faults))
    except RuntimeError as error:  # an unknown home, or links in a circle
        fault = Fault(str(path), f"is not a usable path (got: {error})", "a spec file", "Check the path.")
        return RawSpec(path, {}, None, (fault,))
    if "axes" in raw:
        fault = Fault(str(path), "is a sweep (got axes)", "the spec of one run", "Use mta sweep for it.")
        return RawSpec(path, {}, None, (fault,))
    return _read(RunSpec, raw, path, overrides, {}, repetitions)


def read_settings(
    kind: type[SpecT], raw: dict[str, Any], folder: Path, overrides: Sequence[str], given: Mapping[KeyPath, str]
) -> RawSpec[SpecT]:
    """Validate a spec that a command builds, as ``read_spec`` does for a file.

    Args:
        kind: Class of the spec.
        raw: The document, which overrides change in place.
        folder: Folder that relative paths are relative to.
        overrides: ``KEY=VALUE`` settings, as after ``--set``.
        given: Key paths that other options set -> the names of these options.
    """
    return _read(kind, raw, folder, overrides, given, [])


def _read(
    kind: type[SpecT],
    raw: dict[str, Any],
    path: Path,
    overrides: Sequence[str],
    given: Mapping[KeyPath, str],
    repetitions: Sequence[Fault],
) -> RawSpec[SpecT]:
    folder, schema = path if path.is_dir() else path.parent, schema_of(kind)
    overridden, refused = override(raw, overrides, schema)
    draft, unsound = repaired(kind, raw, folder, schema)
    named = {**dict.fromkeys(overridden), **given}
    reading = RawSpec(path, raw, None, (), draft, frozenset(unsound), named)
    contradictions = listed(_contradictions(reading), reading.where(()))
    faults = (*repetitions, *refused, *_structural(kind, reading, folder), *contradictions)
    return RawSpec(path, raw, None if faults else draft, faults, draft, frozenset(unsound), named)


def _structural(kind: type[SpecT], reading: RawSpec[SpecT], folder: Path) -> list[Fault]:
    try:
        validate(kind, reading.raw, folder)
    except ValidationError as error:
        return faults_of(error, schema_of(kind), reading.where, "field")
    return []


def _contradictions(reading: RawSpec[SpecT]) -> Iterator[Fault]:
    for key_path, section in _sections(reading.draft, ()):
        for contradiction in section.contradictions():
            if all(reading.sound(*key_path, *involved.split(".")) for involved in contradiction.involved):
                at = (*key_path, *contradiction.at.split(".")) if contradiction.at else key_path
                yield Fault(reading.where(at), contradiction.problem, contradiction.expected, contradiction.hint)


def _sections(value: Any, key_path: KeyPath) -> Iterator[tuple[KeyPath, Section]]:
    if isinstance(value, Section):
        yield key_path, value
        value = {name: getattr(value, name) for name in type(value).model_fields}
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield from _sections(entry, (*key_path, key))
