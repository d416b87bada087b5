"""The JSON document of a spec, read strictly: no repeated key, no NaN, no infinity."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mta_framework.errors import Fault, InputError

KeyPath = tuple[str | int, ...]
"""Keys and list indices that lead to a value in a document."""

_DEEPEST = 50
"""Deepest nesting that is read: far more levels than any spec has, far fewer than Python's stack."""
_MAX_BYTES = 2**24
"""Largest file that is read as a spec."""

_LARGEST_INTEGER = 2**53 - 1
"""Largest integer that every reader of JSON takes alike (RFC 8259)."""

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_TOO_DEEP = f"more than {_DEEPEST} levels of brackets"


@dataclass(frozen=True)
class Repeated:
    """Placeholder for the value of a key that occurs more than once, until faults are collected."""

    values: tuple[Any, ...]


def parse(text: str) -> Any:
    """Parse strict JSON; repeated keys give a ``Repeated``.

    Raises:
        ValueError: The text is not JSON (``json.JSONDecodeError`` if the position is known).
    """
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_finite_float)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if _depth(value) > _DEEPEST:
        raise ValueError(_TOO_DEEP)
    if half := _HALF_CHARACTER.search(json.dumps(value, ensure_ascii=False, default=_all_values)):
        raise ValueError(f"\\u{ord(half[0]):04x} is half a character")
    return value


def read_document(
    path: Path, kind: str = "a spec file", hint: str = "Start from `mta init`."
) -> tuple[dict[str, Any], list[Fault]]:
    """Read a spec file, or another JSON object that a user wrote.

    Args:
        path: The file.
        kind: What the file should be.
        hint: How to get one.

    Returns:
        The top-level object, and one fault for every repeated key (the last value is kept) and too large integer.

    Raises:
        InputError: The file does not exist, or does not contain a JSON object.
    """
    try:
        # Windows editors put a byte order mark before UTF-8.
        document = parse(_read_bytes(path).decode("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError([_unreadable(path, error, kind, hint)]) from None
    if not isinstance(document, dict):
        problem = f"does not contain a JSON object (got {shown(document)})"
        raise InputError([Fault(str(path), problem, "an object, {...}", hint)])
    return document, settle(document)


def settle(value: Any) -> list[Fault]:
    """Replace every ``Repeated`` inside ``value`` by its last value, too large integers by 0; a fault for each."""
    return list(_settled(value, ()))


def shown(value: Any) -> str:
    """A value as quoted in error messages: shortened, strings in single quotes, everything else as JSON."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_last)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _read_bytes(path: Path) -> bytes:
    if path.exists() and not path.is_file() and not path.is_dir():  # reading a pipe or a device may never end
        raise ValueError("it is a pipe, a socket or a device")
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"it has more than {_MAX_BYTES:,} bytes")
    return content


def _settled(value: Any, key_path: KeyPath) -> Iterator[Fault]:
    entries = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, entry in entries:
        where = ".".join(map(str, (*key_path, key)))
        if isinstance(entry, Repeated):
            given = " and ".join(shown(each) for each in entry.values)
            problem = f"is given {len(entry.values)} times (got {given})"
            yield Fault(where, problem, "each key once per object", "Remove all but one.")
            value[key] = entry = entry.values[-1]
        if isinstance(entry, int) and abs(entry) > _LARGEST_INTEGER:
            problem, limit = f"is too large for an integer (got {shown(entry)})", f"at most {_LARGEST_INTEGER:,}"
            yield Fault(where, problem, limit, "Correct it.")
            value[key] = 0
        yield from _settled(entry, (*key_path, key))


def _depth(value: Any) -> int:
    """Number of levels of nesting, counted up to one above the limit."""
    level, depth = [value], 0
    while level and depth <= _DEEPEST:
        holders = [entry.values if isinstance(entry, Repeated) else entry for entry in level]
        level = [
            inner
            for holder in holders
            if isinstance(holder, dict | list | tuple)
            for inner in (holder.values() if isinstance(holder, dict) else holder)
        ]
        depth += 1
    return depth


def _all_values(value: Any) -> Any:
    return value.values if isinstance(value, Repeated) else str(value)


def _last(value: Any) -> Any:
    return value.values[-1] if isinstance(value, Repeated) else str(value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, list[Any]] = {}
    for key, value in pairs:
        values.setdefault(key, []).append(value)
    return {key: given[0] if len(given) == 1 else Repeated(tuple(given)) for key, given in values.items()}


def _constant(text: str) -> float:
    raise ValueError(f"{text} is not a number in JSON")


def _finite_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is too large for a number")
    return value


def _unreadable(path: Path, error: Exception, kind: str, hint: str) -> Fault:
    if isinstance(error, json.JSONDecodeError):
        where = f"{path}:{error.lineno}:{error.colno}"
        problem = f"is not JSON (got: {error.msg[:1].lower()}{error.msg[1:]})"
        return Fault(where, problem, "strict JSON, without comments or trailing commas", "Correct the syntax.")
    if isinstance(error, FileNotFoundError):
        return Fault(str(path), "does not exist", kind, f"Check the path. {hint}")
    if isinstance(error, UnicodeDecodeError):
        return Fault(str(path), f"is not UTF-8 (got byte {error.start})", "JSON in UTF-8", "Save it as UTF-8.")
    if isinstance(error, OSError):
        return Fault(str(path), f"cannot be read (got {error.strerror})", "a readable file", "Check the path.")
    return Fault(str(path), f"is not JSON (got: {error})", "strict JSON with finite numbers", "Correct the value.")
