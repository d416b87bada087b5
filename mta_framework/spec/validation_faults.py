"""Turns the errors of pydantic into faults."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import ValidationError

from mta_framework.errors import Fault, nearest, nearest_name, plural
from mta_framework.spec.document import KeyPath, parse, shown
from mta_framework.spec.schema_text import Schema, branches, phrase, property_at, untagged

_PROBLEMS = {
    "_type": "has the wrong type",
    "greater_than": "is out of range",
    "greater_than_equal": "is out of range",
    "less_than": "is out of range",
    "less_than_equal": "is out of range",
    "finite_number": "is not finite",
    "multiple_of": "is out of range",
    "string_pattern_mismatch": "has an invalid form",
    "literal_error": "is not one of the choices",
    "enum": "is not one of the choices",
    "union_tag_invalid": "is not one of the choices",
    "too_short": "is too short",
    "too_long": "is too long",
}
"""Pydantic's name of an error, or its suffix -> the problem."""

MOST_FAULTS = 100
"""Most faults of one document that are listed, and most unknown fields that are compared to known ones."""


def faults_of(error: ValidationError, schema: Schema, where: Callable[[KeyPath], str], noun: str) -> list[Fault]:
    """Make one fault for every value that failed validation.

    Of many, the first are listed: each is compared to all known names, in case it is misspelt.

    Args:
        error: The validation error.
        schema: JSON Schema of the model that was validated.
        where: Turns a key path into the name that users read.
        noun: Noun for an entry, e.g. ``field`` or ``option of kl``.
    """
    details = [(key_path_of(detail, schema), detail) for detail in error.errors(include_url=False)]
    holders = {key_path[:length] for key_path, _ in details for length in range(len(key_path))}
    faults: dict[KeyPath, Fault] = {}
    for key_path, detail in details:
        if len(faults) > MOST_FAULTS:
            break
        # Pydantic also reports a tuple of faulty entries as too short.
        if not (key_path in holders and detail["type"] == "too_short"):
            # A union gives one error per alternative; its schema names them all at once.
            faults.setdefault(key_path, _fault(detail, _tagged_key_path(detail, schema), schema, where(key_path), noun))
    return listed(faults.values(), where(()))


def listed(faults: Iterable[Fault], where: str) -> list[Fault]:
    """The first of many faults; the last one then says that there are more.

    Args:
        faults: Any number of faults.
        where: Name of the document.
    """
    first = list(itertools.islice(faults, MOST_FAULTS + 1))
    if len(first) <= MOST_FAULTS:
        return first
    problem = f"has more faults than the {MOST_FAULTS} that are listed"
    return [*first[:MOST_FAULTS], Fault(where, problem, "a document without faults", "Correct the listed ones first.")]


def key_path_of(detail: Any, schema: Schema) -> KeyPath:
    """The key path of an error, without the tags that pydantic adds for unions and keys."""
    return untagged(schema, _tagged_key_path(detail, schema))


def _tagged_key_path(detail: Any, schema: Schema) -> KeyPath:
    """The key path of an error with the tags of discriminated unions, which select the schema."""
    key_path: KeyPath = detail["loc"][:-1] if detail["loc"][-1:] == ("[key]",) else detail["loc"]
    if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return (*key_path, detail["ctx"]["discriminator"].strip("'"))
    if detail["type"] in ("missing", "extra_forbidden"):
        return key_path
    while key_path and property_at(schema, key_path) is None:
        key_path = key_path[:-1]
    return key_path


def meant(key_path: KeyPath, schema: Schema) -> str | None:
    """The known field that resembles the unknown one at ``key_path``; None if there is none."""
    return nearest_name(str(key_path[-1]), _fields(key_path, schema))


def _fields(key_path: KeyPath, schema: Schema) -> list[str]:
    parent = property_at(schema, key_path[:-1]) or {}
    return [name for branch in branches(schema, parent) for name in branch.get("properties", {})]


def _fault(detail: Any, key_path: KeyPath, schema: Schema, where: str, noun: str) -> Fault:
    expected = phrase(schema, property_at(schema, key_path) or {})
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        known = _fields(key_path, schema)
        names = f"one of the {plural(noun)}: {', '.join(known)}" if known else f"no {noun}"
        guess = meant(key_path, schema)
        hint = f"Did you mean {guess!r}?" if guess else "Remove it."
        return Fault(where, f"is not {_article(noun)} (got {shown(key_path[-1])})", names, hint)
    if kind in ("missing", "union_tag_not_found"):
        return Fault(where, "is missing", expected, "Add it.")
    if detail["loc"][-1:] == ("[key]",):
        problem = f"has an invalid name (got {shown(value)})"
        dot = "'.', " if "._" in detail.get("ctx", {}).get("pattern", "._") else ""
        return Fault(where, problem, f"letters, digits, {dot}'_' and '-', the first a letter or digit", "Rename it.")
    if kind in ("value_error", "assertion_error"):
        problem = str(detail["ctx"]["error"])
        problem = problem if "(got" in problem else f"{problem} (got {shown(value)})"
        fitting = "values that fit together" if isinstance(value, dict) else expected
        return Fault(where, problem, fitting, "Correct it.")
    if kind == "union_tag_invalid":
        value = value[key_path[-1]]
    problem = next((text for name, text in _PROBLEMS.items() if kind.endswith(name)), detail["msg"])
    return Fault(where, f"{problem} (got {shown(value)})", expected, _hint(value, schema, key_path))


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _hint(value: Any, schema: Schema, key_path: KeyPath) -> str:
    options = branches(schema, property_at(schema, key_path) or {})
    choices = [choice for option in options for choice in option.get("enum", ())]
    if isinstance(value, str) and choices:
        return nearest(value, map(str, choices)) or "Choose one of them."
    return "Remove the quotes." if _quoted(value, {option.get("type") for option in options}) else "Correct the value."


def _quoted(value: Any, types: set[str | None]) -> bool:
    if not isinstance(value, str) or "string" in types:
        return False
    try:
        return isinstance(parse(value), int | float)
    except ValueError:
        return False
