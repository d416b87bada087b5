"""Reads a spec, from a file or as the command line gives it, with every fault of its structure at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Generic

from pydantic import ValidationError

from mta_framework.errors import Fault, InputError
from mta_framework.spec.document import Place, read_document
from mta_framework.spec.faults import faults_of
from mta_framework.spec.overrides import override
from mta_framework.spec.repair import SpecT, repaired, validate
from mta_framework.spec.run import RunSpec
from mta_framework.spec.schema_text import Schema
from mta_framework.spec.section import Section


@dataclass(frozen=True)
class RawSpec(Generic[SpecT]):
    """A spec as read, sound or not.

    Args:
        path: The file, absolute; where there is none, the folder that relative paths are relative to.
        raw: The document after overrides, as the user wrote it.
        spec: The validated spec, its paths absolute; None if there are faults.
        faults: All structural faults.
        draft: The spec with faulty values replaced, for checks that look at the sound rest; None if there is nothing
            to look at.
        unsound: The places of the draft that were replaced.
        given: The places that the command line set -> how a user calls them; None: by their name, after ``--set``.
    """

    path: Path
    raw: dict[str, Any]
    spec: SpecT | None
    faults: tuple[Fault, ...]
    draft: SpecT | None = None
    unsound: frozenset[Place] = field(default_factory=frozenset)
    given: Mapping[Place, str | None] = field(default_factory=dict)

    def where(self, place: Place) -> str:
        """The name of a place in error messages; places that the command line set say so."""
        name = ".".join(map(str, place)) or str(self.path)
        setting = next((given for given in self.given if place[: len(given)] == given), None)
        return name if setting is None else self.given[setting] or f"--set {name}"

    def sound(self, *place: str | int) -> bool:
        """Whether the draft's value at ``place`` is what the user gave, list entries included."""
        return not any(_touches(unsound, place) for unsound in self.unsound)


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
        fault = Fault(str(path), f"is no usable path (got: {error})", "a spec file", "Check the path.")
        return RawSpec(path, {}, None, (fault,))
    return _read(RunSpec, raw, path, overrides, {}, repetitions)


def read_settings(
    kind: type[SpecT], raw: dict[str, Any], folder: Path, overrides: Sequence[str], given: Mapping[Place, str]
) -> RawSpec[SpecT]:
    """Validate a spec that a command puts together, as ``read_spec`` does one in a file.

    Args:
        kind: What it is a spec of.
        raw: The document; overrides change it.
        folder: What relative paths are relative to.
        overrides: As above.
        given: Places that other options set -> how a user calls them.
    """
    return _read(kind, raw, folder, overrides, given, [])


def _read(
    kind: type[SpecT],
    raw: dict[str, Any],
    path: Path,
    overrides: Sequence[str],
    given: Mapping[Place, str],
    repetitions: Sequence[Fault],
) -> RawSpec[SpecT]:
    folder, schema = path if path.is_dir() else path.parent, _schema(kind)
    overridden, refused = override(raw, overrides, schema)
    draft, unsound = repaired(kind, raw, folder, schema)
    named = {**dict.fromkeys(overridden), **given}
    reading = RawSpec(path, raw, None, (), draft, frozenset(unsound), named)
    faults = (*repetitions, *refused, *_structural(kind, reading, folder), *_contradictions(reading))
    return RawSpec(path, raw, None if faults else draft, faults, draft, frozenset(unsound), named)


@cache
def _schema(kind: type[Section]) -> Schema:
    """JSON Schema of a spec, plugin sections as plain names and objects."""
    return kind.model_json_schema()


def _structural(kind: type[SpecT], reading: RawSpec[SpecT], folder: Path) -> list[Fault]:
    try:
        validate(kind, reading.raw, folder)
    except ValidationError as error:
        return faults_of(error, _schema(kind), reading.where, "field")
    return []


def _contradictions(reading: RawSpec[SpecT]) -> Iterator[Fault]:
    for place, section in _sections(reading.draft, ()):
        for found in section.contradictions():
            if all(reading.sound(*place, *involved.split(".")) for involved in found.involved):
                at = (*place, *found.at.split(".")) if found.at else place
                yield Fault(reading.where(at), found.problem, found.expected, found.hint)


def _sections(value: Any, place: Place) -> Iterator[tuple[Place, Section]]:
    if isinstance(value, Section):
        yield place, value
        value = {name: getattr(value, name) for name in type(value).model_fields}
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield from _sections(entry, (*place, key))


def _touches(unsound: Place, place: Place) -> bool:
    shared = min(len(unsound), len(place))
    # Below a place only list entries count: a section stands though one of its fields is faulty.
    return unsound[:shared] == place[:shared] and all(isinstance(key, int) for key in unsound[shared:])
