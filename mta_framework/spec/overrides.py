"""``--set a.b=value``: changes to a spec from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mta_framework.errors import Fault
from mta_framework.spec.document import KeyPath, parse, settle, shown
from mta_framework.spec.schema_text import Schema, branches, property_at


class _Refused(Exception):
    """An override that cannot be applied."""

    def __init__(self, problem: str, expected: str, hint: str):
        self.parts = (problem, expected, hint)


def override(document: dict[str, Any], settings: Sequence[str], schema: Schema) -> tuple[list[KeyPath], list[Fault]]:
    """Apply ``KEY=VALUE`` settings to ``document``, in their order.

    A key is a dotted path with list entries by index; a value is JSON, or a string if it is not JSON. A missing
    section on the path is filled with its default first; a section that is null must be set as a whole.

    Returns:
        The key paths that were set, and a fault for every setting that cannot be applied. Values are not validated.
    """
    key_paths: list[KeyPath] = []
    faults: list[Fault] = []
    for setting in settings:
        try:
            key, value = _split(setting)
            given = {".".join(key): value}
            faults += settle(given)
            (value,) = given.values()
            key_paths.append(_apply(document, key, value, schema))
        except _Refused as refused:
            faults.append(Fault(f"--set {setting}", *refused.parts))
    return key_paths, faults


def _split(setting: str) -> tuple[list[str], Any]:
    if any("\ud800" <= character <= "\udfff" for character in setting):
        raise _Refused("is not valid UTF-8", "text in the encoding of the terminal", "Correct it.")
    key, equals, text = setting.partition("=")
    if not equals or not all(key.split(".")):
        raise _Refused(
            f"is not a setting (got {setting!r})", "KEY=VALUE, e.g. training.epochs=3", "Write it in this form."
        )
    try:
        value = parse(text)
    except ValueError:
        value = text
    return key.split("."), value


def _apply(document: dict[str, Any], keys: list[str], value: Any, schema: Schema) -> KeyPath:
    """Set a value, and return the key path that the setting created or changed."""
    *parents, last = keys
    holder: Any = document
    key_path: KeyPath = ()
    made: KeyPath = ()
    for key in parents:
        step = _step(holder, key, key_path)
        key_path = (*key_path, step)
        if isinstance(holder, dict) and step not in holder:
            holder[step] = _default(schema, key_path)
            made = made or (key_path if property_at(schema, key_path) is None else ())
        holder = holder[step]
    step = _step(holder, last, key_path)
    holder[step] = value
    return made or (*key_path, step)


def _step(holder: Any, key: str, key_path: KeyPath) -> str | int:
    name = ".".join(map(str, key_path))
    if isinstance(holder, dict):
        return key
    if isinstance(holder, list):
        if key.isdecimal() and int(key) < len(holder):
            return int(key)
        count = f"the index of an entry of {name}, up to {len(holder) - 1}" if holder else f"{name} as a whole, as JSON"
        raise _Refused(f"is not an entry (got {key!r})", count, "Name one of them, or set the whole list.")
    if holder is None:
        raise _Refused(f"reaches into {name}, which is null", f"{name} as a whole, as JSON", f"Set {name} itself.")
    raise _Refused(f"reaches into {name}, which is {shown(holder)}", "a path through objects and lists", "Shorten it.")


def _default(schema: Schema, key_path: KeyPath) -> Any:
    node = property_at(schema, key_path)
    if node is None or "default" in node:
        # An unknown name gets an object, so that validation refuses it by name.
        return {} if node is None else _copied(node["default"])
    return [] if any(branch.get("type") == "array" for branch in branches(schema, node)) else {}


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(entry) for key, entry in value.items()}
    return [_copied(entry) for entry in value] if isinstance(value, list) else value
