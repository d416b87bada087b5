"""Makes a faulty document valid, so that the rest of it can be checked as well."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from mta_framework.spec.document import Place
from mta_framework.spec.faults import meant, place_of
from mta_framework.spec.schema_text import Schema, property_at
from mta_framework.spec.section import Section

SpecT = TypeVar("SpecT", bound=Section)

_ROUNDS = 10
"""More than the spec is deep: emptying a list can only uncover a fault one level up."""


def validate(kind: type[SpecT], document: Mapping[str, Any], folder: Path) -> SpecT:
    """Validate types and ranges strictly; contradictions between fields are left to the caller.

    Raises:
        ValidationError: As pydantic does.
    """
    context = {"folder": folder, "defer_contradictions": True}
    return kind.model_validate(document, strict=True, context=context)


def repaired(
    kind: type[SpecT], document: Mapping[str, Any], folder: Path, schema: Schema
) -> tuple[SpecT | None, set[Place]]:
    """A draft of the spec in which every faulty value is replaced: by its default, or else by its example.

    Returns:
        The draft, and the places that say nothing of the user's intent. None where no draft could be made.
    """
    draft: Any = copy.deepcopy(dict(document))
    places: set[Place] = set()
    for _ in range(_ROUNDS):
        try:
            return validate(kind, draft, folder), places
        except ValidationError as error:
            details = error.errors(include_url=False)
        found = {place_of(detail, schema) for detail in details}
        unknown = {place_of(detail, schema) for detail in details if detail["type"] == "extra_forbidden"}
        # A misspelt field was given, so nothing may be made of the absence of the one that was meant.
        places |= found | {(*place[:-1], name) for place in unknown if (name := meant(place, schema))}
        # The last entries first: deleting one must not shift the others.
        for place in sorted(found, key=lambda place: [str(key).rjust(9) for key in place], reverse=True):
            _mend(draft, place, schema)
    return None, places


def _mend(draft: Any, place: Place, schema: Schema) -> None:
    holder = draft
    for key in place[:-1]:
        try:
            holder = holder[key]
        except (KeyError, IndexError, TypeError):
            return
    key, node = place[-1] if place else "", property_at(schema, place) or {}
    if isinstance(holder, dict) and "examples" in node and "default" not in node:
        holder[key] = copy.deepcopy(node["examples"][0])
    elif isinstance(holder, dict):
        holder.pop(key, None)
    elif isinstance(holder, list) and isinstance(key, int) and key < len(holder):
        del holder[key]
