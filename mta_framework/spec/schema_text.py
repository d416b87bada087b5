"""Describes a JSON Schema in words, and finds the schema of a value in a document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mta_framework.spec.document import KeyPath, shown

Schema = dict[str, Any]

_TYPES = {
    "integer": "an integer",
    "number": "a number",
    "string": "a string",
    "boolean": "true or false",
    "null": "null",
    "array": "a list",
    "object": "an object",
}
_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def property_at(schema: Schema, key_path: KeyPath) -> Schema | None:
    """The schema of the value at ``key_path``, with an unresolved reference at its top; None if there is no such value.

    A tag in the key path (see ``untagged``) selects its alternative.
    """
    node: Schema | None = schema
    for key in key_path:
        node = _step(schema, node or {}, key)
        if node is None:
            break
    return node


def untagged(schema: Schema, key_path: KeyPath) -> KeyPath:
    """A key path without the tags that pydantic adds for discriminated unions."""
    kept: KeyPath = ()
    node: Schema | None = schema
    for key in key_path:
        if node is None or key not in _tags(node):
            kept = (*kept, key)
        node = _step(schema, node or {}, key)
    return kept


def branches(root: Schema, node: Schema) -> list[Schema]:
    """The alternatives of a node, with references resolved."""
    if "$ref" in node:
        return branches(root, root["$defs"][node["$ref"].rsplit("/", 1)[-1]])
    options = node.get("anyOf") or node.get("oneOf")
    return [branch for option in options for branch in branches(root, option)] if options else [node]


def fields_within(root: Schema, node: Schema) -> Iterator[tuple[str, Schema, bool]]:
    """Yield name, schema and required flag of every field of the objects that a node may be.

    The description of a field that some alternatives lack says to which of them it belongs.
    """
    tags = _tags(node)
    alternatives = {tag: branches(root, option)[0] for tag, option in tags.items()} if tags else {}
    objects = list(alternatives.values()) or branches(root, node)
    for name in dict.fromkeys(name for entry in objects for name in entry.get("properties", {})):
        holders = [entry for entry in objects if name in entry.get("properties", {})]
        field = _joined([entry["properties"][name] for entry in holders])
        tag_field = node["discriminator"]["propertyName"] if tags else None
        if alternatives and len(holders) < len(alternatives):
            owners = " or ".join(tag for tag, entry in alternatives.items() if entry in holders)
            field = {**field, "description": f"With {tag_field} {owners}: {field.get('description', '')}"}
        yield name, field, name == tag_field or any(name in entry.get("required", ()) for entry in holders)


def phrase(root: Schema, node: Schema) -> str:
    """The expected value in words, e.g. ``an integer >= 1 or null``."""
    return " or ".join(dict.fromkeys(_phrase(root, branch) for branch in branches(root, node)))


def _tags(node: Schema) -> dict[Any, Schema]:
    """Tags of a discriminated union -> its alternatives, in their order."""
    mapping = node.get("discriminator", {}).get("mapping", {})
    return {tag: option for option in node.get("oneOf", ()) for tag in mapping if option["$ref"] == mapping[tag]}


def _step(root: Schema, node: Schema, key: str | int) -> Schema | None:
    if key in (tags := _tags(node)):
        return tags[key]
    children = [child for branch in branches(root, node) if (child := _child(branch, key))]
    return _joined(children) if children else None


def _joined(alternatives: list[Schema]) -> Schema:
    """One field for those that alternatives have under one name: all their choices, where these are constants."""
    first = alternatives[0]
    if len(alternatives) == 1 or not all("const" in entry for entry in alternatives):
        return first
    described = " ".join(f"{entry['const']}: {entry.get('description', '')}" for entry in alternatives)
    return {"enum": [entry["const"] for entry in alternatives], "type": first["type"], "description": described}


def _child(node: Schema, key: str | int) -> Schema | None:
    if isinstance(key, int):
        return node.get("items")
    extra = node.get("additionalProperties") or next(iter(node.get("patternProperties", {}).values()), None)
    return node.get("properties", {}).get(key) or (extra if isinstance(extra, dict) else None)


def _phrase(root: Schema, node: Schema) -> str:
    if "const" in node or "enum" in node:
        choices = [shown(choice) for choice in node.get("enum", [node.get("const")])]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    text = _TYPES.get(node.get("type", ""), "any value")
    if node.get("minLength") or node.get("minItems") or node.get("minProperties"):
        text = f"a non-empty {text.split(' ', 1)[1]}"
    if "maxLength" in node:
        text += f" of at most {node['maxLength']} characters"
    if "pattern" in node:
        text += f" that matches {node['pattern']}"
    text += " and".join(f" {sign} {node[key]}" for key, sign in _BOUNDS.items() if key in node)
    if isinstance(node.get("items"), dict) and node["items"]:
        text += f", each entry {phrase(root, node['items'])}"
    return text
