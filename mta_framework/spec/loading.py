"""Reads a spec file, with every fault of its structure at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mta_framework.errors import Fault, InputError
from mta_framework.spec.document import Place, read_document
from mta_framework.spec.faults import faults_of
from mta_framework.spec.outline import Schema
from mta_framework.spec.overrides import override
from mta_framework.spec.repair import repaired, validate
from mta_framework.spec.section import Section
from mta_framework.spec.sections import RunSpec


@dataclass(frozen=True)
class RawSpec:
    """A spec as read, sound or not.

    Args:
        path: The file, absolute.
        raw: The document after overrides, as the user wrote it.
        spec: The validated spec, its paths absolute; None if there are faults.
        faults: All structural faults.
        draft: The spec with faulty values replaced, for checks that look at the sound rest; None if there is nothing
            to look at.
        unsound: The places of the draft that were replaced.
        overridden: The places that overrides set.
    """

    path: Path
    raw: dict[str, Any]
    spec: RunSpec | None
    faults: tuple[Fault, ...]
    draft: RunSpec | None = None
    unsound: frozenset[Place] = field(default_factory=frozenset)
    overridden: tuple[Place, ...] = ()

    def where(self, place: Place) -> str:
        """The name of a place in error messages; places that an override set say so."""
        from_command_line = any(place[: len(given)] == given for given in self.overridden)
        return ("--set " if from_command_line else "") + (".".join(map(str, place)) or str(self.path))

    def sound(self, *place: str | int) -> bool:
        """Whether the draft's value at ``place`` is what the user gave, list entries included."""
        return not any(_touches(unsound, place) for unsound in self.unsound)


def read_spec(path: Path, overrides: Sequence[str] = ()) -> RawSpec:
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
    overridden, refused = override(raw, overrides, spec_schema())
    draft, unsound = repaired(raw, path.parent, spec_schema())
    reading = RawSpec(path, raw, None, (), draft, frozenset(unsound), tuple(overridden))
    faults = (*repetitions, *refused, *_structural(reading), *_contradictions(reading))
    return RawSpec(path, raw, None if faults else draft, faults, draft, frozenset(unsound), tuple(overridden))


@cache
def spec_schema() -> Schema:
    """JSON Schema of a spec, plugin sections as plain names and objects."""
    return RunSpec.model_json_schema()


def _structural(reading: RawSpec) -> list[Fault]:
    try:
        validate(reading.raw, reading.path.parent)
    except ValidationError as error:
        return faults_of(error, spec_schema(), reading.where, "field")
    return []


def _contradictions(reading: RawSpec) -> Iterator[Fault]:
    for place, section in _sections(reading.draft, ()):
        for found in section.contradictions():
            if all(reading.sound(*place, *involved.split(".")) for involved in found.involved):
                at = (*place, *found.at.split(".")) if found.at else place
                yield Fault(reading.where(at), found.wrong, found.allowed, found.todo)


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
