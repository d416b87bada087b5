"""What a JSON Schema allows, in words; and the way from a place in a document to its schema."""

from __future__ import annotations

from typing import Any

from mta_framework.spec.document import Place, shown

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


def property_at(schema: Schema, place: Place) -> Schema | None:
    """The schema of the value at ``place``, references at its own top kept; None where there is none."""
    node: Schema | None = schema
    for key in place:
        node = next(filter(None, (_child(branch, key) for branch in branches(schema, node or {}))), None)
        if node is None:
            return None
    return node


def branches(root: Schema, node: Schema) -> list[Schema]:
    """The alternatives of a node, with references followed."""
    if "$ref" in node:
        return branches(root, root["$defs"][node["$ref"].rsplit("/", 1)[-1]])
    return [branch for option in node["anyOf"] for branch in branches(root, option)] if "anyOf" in node else [node]


def phrase(root: Schema, node: Schema) -> str:
    """What is allowed, e.g. ``an integer >= 1 or null``."""
    return " or ".join(_phrase(root, branch) for branch in branches(root, node))


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
