"""``--set a.b=value``: changes to a spec from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mta_framework.errors import Fault
from mta_framework.spec.document import Place, parse, settle, shown
from mta_framework.spec.schema_text import Schema, branches, property_at


class _Refused(Exception):
    """An override leads nowhere."""

    def __init__(self, problem: str, expected: str, hint: str):
        self.parts = (problem, expected, hint)


def override(document: dict[str, Any], settings: Sequence[str], schema: Schema) -> tuple[list[Place], list[Fault]]:
    """Apply ``KEY=VALUE`` settings to ``document``, in their order.

    A key is a dotted path, list entries by number; a value is JSON, or else a string. Where a section on the way is
    left out of the document, its default is spelled out first; a section that is null has to be set as a whole.

    Returns:
        The places that were set, and a fault for every setting that leads nowhere. Whether the values fit is left to
        validation.
    """
    places: list[Place] = []
    faults: list[Fault] = []
    for setting in settings:
        try:
            key, value = _split(setting)
            faults += settle(value)
            places.append(_apply(document, key, value, schema))
        except _Refused as refused:
            faults.append(Fault(f"--set {setting}", *refused.parts))
    return places, faults


def _split(setting: str) -> tuple[list[str], Any]:
    key, equals, text = setting.partition("=")
    if not equals or not all(key.split(".")):
        raise _Refused(
            f"is no setting (got {setting!r})", "KEY=VALUE, e.g. training.epochs=3", "Write it in this form."
        )
    try:
        value = parse(text)
    except ValueError:
        value = text
    return key.split("."), value


def _apply(document: dict[str, Any], keys: list[str], value: Any, schema: Schema) -> Place:
    """Set a value, and return the place that is now of the setting's making."""
    *way, last = keys
    holder: Any = document
    place: Place = ()
    made: Place = ()
    for key in way:
        step = _step(holder, key, place)
        place = (*place, step)
        if isinstance(holder, dict) and step not in holder:
            holder[step] = _default(schema, place)
            made = made or (place if property_at(schema, place) is None else ())
        holder = holder[step]
    step = _step(holder, last, place)
    holder[step] = value
    return made or (*place, step)


def _step(holder: Any, key: str, place: Place) -> str | int:
    name = ".".join(map(str, place))
    if isinstance(holder, dict):
        return key
    if isinstance(holder, list):
        if key.isdecimal() and int(key) < len(holder):
            return int(key)
        count = f"{name} has {len(holder)} entries, counted from 0"
        raise _Refused(f"names no entry (got {key!r})", count, "Name one of them, or set the whole list.")
    if holder is None:
        raise _Refused(f"reaches into {name}, which is null", f"{name} as a whole, as JSON", f"Set {name} itself.")
    raise _Refused(f"reaches into {name}, which is {shown(holder)}", "a path through objects and lists", "Shorten it.")


def _default(schema: Schema, place: Place) -> Any:
    node = property_at(schema, place)
    if node is None or "default" in node:
        # An unknown name gets an object, so that validation refuses it by name.
        return {} if node is None else _copied(node["default"])
    return [] if any(branch.get("type") == "array" for branch in branches(schema, node)) else {}


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(entry) for key, entry in value.items()}
    return [_copied(entry) for entry in value] if isinstance(value, list) else value
