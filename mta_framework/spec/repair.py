"""Replaces the faulty values of a document, so that the remaining ones can be checked as well."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from mta_framework.spec.document import KeyPath
from mta_framework.spec.schema_text import Schema, property_at
from mta_framework.spec.section import Section
from mta_framework.spec.validation_faults import MOST_FAULTS, key_path_of, meant

SpecT = TypeVar("SpecT", bound=Section)

_ROUNDS = 10
"""Limit of repairs, more than the depth of a spec: emptying a list can only reveal a fault one level up."""


def validate(kind: type[SpecT], document: Mapping[str, Any], folder: Path) -> SpecT:
    """Validate types and ranges strictly, without contradictions between fields.

    Raises:
        ValidationError: Some value has an invalid type or range, or a field is unknown or missing.
    """
    context = {"folder": folder, "defer_contradictions": True}
    return kind.model_validate(document, strict=True, context=context)


def repaired(
    kind: type[SpecT], document: Mapping[str, Any], folder: Path, schema: Schema
) -> tuple[SpecT | None, set[KeyPath]]:
    """Replace every faulty value by its default or, without one, by its example.

    Returns:
        The repaired draft, None if it could not be made, and the key paths that do not reflect the user's intent.
    """
    draft: Any = copy.deepcopy(dict(document))
    key_paths: set[KeyPath] = set()
    for _ in range(_ROUNDS):
        try:
            return validate(kind, draft, folder), key_paths
        except ValidationError as error:
            details = error.errors(include_url=False)
        faulty = {key_path_of(detail, schema) for detail in details}
        unknown = {key_path_of(detail, schema) for detail in details if detail["type"] == "extra_forbidden"}
        # A misspelt field was given, so the absence of the intended one must not be reported.
        checked = sorted(unknown, key=str)[:MOST_FAULTS]
        key_paths |= faulty | {(*key_path[:-1], name) for key_path in checked if (name := meant(key_path, schema))}
        # The last entries first: deleting one must not shift the others.
        for key_path in sorted(faulty, key=lambda key_path: [str(key).rjust(9) for key in key_path], reverse=True):
            _mend(draft, key_path, schema)
    return None, key_paths


def _mend(draft: Any, key_path: KeyPath, schema: Schema) -> None:
    holder = draft
    for key in key_path[:-1]:
        try:
            holder = holder[key]
        except (KeyError, IndexError, TypeError):
            return
    key, node = key_path[-1] if key_path else "", property_at(schema, key_path) or {}
    if isinstance(holder, dict) and "examples" in node and "default" not in node:
        holder[key] = copy.deepcopy(node["examples"][0])
    elif isinstance(holder, dict):
        holder.pop(key, None)
    elif isinstance(holder, list) and isinstance(key, int) and key < len(holder):
        del holder[key]
