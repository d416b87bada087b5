"""Turns what pydantic objects to into faults in the house's words."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from mta_framework.errors import Fault, nearest
from mta_framework.spec.document import Place, parse, shown
from mta_framework.spec.schema_text import Schema, branches, phrase, property_at, untagged

_WRONG = {
    "_type": "has the wrong type",
    "greater_than": "is out of range",
    "greater_than_equal": "is out of range",
    "less_than": "is out of range",
    "less_than_equal": "is out of range",
    "finite_number": "is not finite",
    "multiple_of": "is out of range",
    "string_pattern_mismatch": "has a form that is not allowed",
    "literal_error": "is not one of the choices",
    "enum": "is not one of the choices",
    "union_tag_invalid": "is not one of the choices",
    "too_short": "is too short",
    "too_long": "is too long",
}
"""Pydantic's name of an error, or its end -> what is wrong."""


def faults_of(error: ValidationError, schema: Schema, where: Callable[[Place], str], noun: str) -> list[Fault]:
    """One fault for every place that ``error`` objects to.

    Args:
        schema: JSON Schema of the model that was validated.
        where: Names a place, as a user reads it.
        noun: What an entry is called, e.g. ``field`` or ``option of kl``.
    """
    details = [(place_of(detail, schema), detail) for detail in error.errors(include_url=False)]
    holders = {place[:length] for place, _ in details for length in range(len(place))}
    faults: dict[Place, Fault] = {}
    for place, detail in details:
        # A tuple of faulty entries is called too short on top of what is wrong with them.
        if not (place in holders and detail["type"] == "too_short"):
            # A union gives one error per alternative; its schema names them all at once.
            faults.setdefault(place, _fault(detail, _tagged_place(detail, schema), schema, where(place), noun))
    return list(faults.values())


def place_of(detail: Any, schema: Schema) -> Place:
    """The place of an error, without the tags that pydantic adds for unions and keys."""
    return untagged(schema, _tagged_place(detail, schema))


def _tagged_place(detail: Any, schema: Schema) -> Place:
    """The same with the tags of those unions whose alternatives a field tells apart: they choose the schema."""
    place: Place = detail["loc"][:-1] if detail["loc"][-1:] == ("[key]",) else detail["loc"]
    if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return (*place, detail["ctx"]["discriminator"].strip("'"))
    if detail["type"] in ("missing", "extra_forbidden"):
        return place
    while place and property_at(schema, place) is None:
        place = place[:-1]
    return place


def meant(place: Place, schema: Schema) -> str | None:
    """The known field that the unknown one at ``place`` resembles."""
    close = difflib.get_close_matches(str(place[-1]), _fields(place, schema), n=1, cutoff=0.5)
    return close[0] if close else None


def _fields(place: Place, schema: Schema) -> list[str]:
    parent = property_at(schema, place[:-1]) or {}
    return [name for branch in branches(schema, parent) for name in branch.get("properties", {})]


def _fault(detail: Any, place: Place, schema: Schema, where: str, noun: str) -> Fault:
    expected = phrase(schema, property_at(schema, place) or {})
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        known = _fields(place, schema)
        names, guess = f"allowed: {', '.join(known) or 'none'}", meant(place, schema)
        hint = f"Did you mean {guess!r}?" if guess else "Remove it."
        return Fault(where, f"is not {_article(noun)} (got {shown(place[-1])})", names, hint)
    if kind in ("missing", "union_tag_not_found"):
        return Fault(where, "is missing (got nothing)", f"it must be {expected}", "Add it.")
    if detail["loc"][-1:] == ("[key]",):
        problem = f"has a name that is not allowed (got {shown(value)})"
        return Fault(where, problem, "letters, digits, '.', '_' and '-', the first a letter or digit", "Rename it.")
    if kind in ("value_error", "assertion_error"):
        problem = str(detail["ctx"]["error"])
        problem = problem if "(got" in problem else f"{problem} (got {shown(value)})"
        fitting = "values that fit together" if isinstance(value, dict) else f"it must be {expected}"
        return Fault(where, problem, fitting, "Correct it.")
    if kind == "union_tag_invalid":
        value = value[place[-1]]
    problem = next((text for name, text in _WRONG.items() if kind.endswith(name)), detail["msg"])
    return Fault(where, f"{problem} (got {shown(value)})", f"it must be {expected}", _todo(value, schema, place))


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _todo(value: Any, schema: Schema, place: Place) -> str:
    options = branches(schema, property_at(schema, place) or {})
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
