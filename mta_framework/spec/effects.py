"""What a change of a field affects: said once, on the field, and read by whatever compares specs, runs or responses."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator
from typing import Any, Literal

from pydantic import JsonValue

from mta_framework.spec.schema_text import property_at
from mta_framework.spec.section import Section, schema_of

Effect = Literal["weights", "responses", "scores", "nothing"]
"""The first result of a run that another value of a field changes; all later results change with it.

``weights``: the trained student. ``responses``: the texts that are generated in evaluation. ``scores``: what is made of
these. ``nothing``: time, memory, files and logs, or results up to rounding.
"""


def affects(effect: Effect) -> dict[str, JsonValue]:
    """Mark a field, as its ``json_schema_extra``; fields of a section inherit its mark unless they have their own."""
    return {"affects": effect}


@functools.cache
def effect_of(spec: type[Section], field: str) -> Effect:
    """Look up what a field affects.

    Args:
        spec: The class of the whole spec.
        field: Dotted name, e.g. ``training.learning_rate``; it may be one that this version does not know.

    Returns:
        The mark of the field, or that of the closest section around it; ``weights`` without any.
    """
    effect: Effect = "weights"
    parts: tuple[str, ...] = tuple(field.split("."))
    for length in range(1, len(parts) + 1):
        node = property_at(schema_of(spec), parts[:length])
        if node is None:
            break
        effect = node.get("affects", effect)
    return effect


def default_of(spec: type[Section], field: str) -> Any:
    """Look up the default of a field by its dotted name; None where it has none, or is unknown."""
    return (property_at(schema_of(spec), tuple(field.split("."))) or {}).get("default")


def differences(
    spec: type[Section], then: Any, now: Any, affecting: Collection[str], where: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Compare two documents of a spec.

    Args:
        spec: The class of the whole spec.
        then: One document.
        now: The other.
        affecting: Only fields that affect one of these are compared.
        where: Dotted name of the part that the documents are; empty: the whole.

    Yields:
        Dotted name, old and new value of each field that differs; None stands for an absent value.
    """
    if isinstance(then, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*then, *now]):
            inner = f"{where}.{key}" if where else key
            yield from differences(spec, then.get(key), now.get(key), affecting, inner)
    elif then != now and effect_of(spec, where) in affecting:
        yield where, then, now
    elif (then is None and isinstance(now, dict)) or (now is None and isinstance(then, dict)):
        # A section that affects nothing by itself: its fields may, and without it they have their defaults.
        section = now if then is None else then
        assert isinstance(section, dict)
        for key, value in section.items():
            inner = f"{where}.{key}"
            default = default_of(spec, inner)
            before, after = (default, value) if then is None else (value, default)
            yield from differences(spec, before, after, affecting, inner)
