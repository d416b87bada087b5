"""``mta schema``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mta_framework.cli.group import say
from mta_framework.cli.options import plugin_option

if TYPE_CHECKING:
    from mta_framework.registry import Registered, Registry

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


@click.command()
@plugin_option
@click.option("--sweep", is_flag=True, help="Print the schema of a sweep instead.")
@click.pass_obj
def schema(plugin_files: tuple[Path, ...], sweep: bool) -> None:
    """Print the JSON Schema of a spec, for editors.

    It includes the installed plugins and their options.
    """
    from mta_framework.registry import discover
    from mta_framework.spec.sweep import SweepSpec

    if sweep:
        document = {"$schema": _DIALECT, **SweepSpec.model_json_schema()}
        say(json.dumps(document, indent=2, ensure_ascii=False))
        return
    say(json.dumps(schema_with_plugins(discover(plugin_files)), indent=2, ensure_ascii=False))


def schema_with_plugins(registry: Registry) -> dict[str, Any]:
    """JSON Schema 2020-12 of a spec, in which each plugin section is one of the plugins that can be bound."""
    from mta_framework.spec.run import RunSpec

    definitions: dict[str, Any] = {}
    schema = RunSpec.model_json_schema()
    document = _opened(schema, registry, definitions, schema["$defs"])
    document["$defs"].update(definitions)
    return {"$schema": _DIALECT, **document}


def _opened(node: Any, registry: Registry, definitions: dict[str, Any], sections: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_opened(entry, registry, definitions, sections) for entry in node]
    if not isinstance(node, dict):
        return node
    opened = {key: _opened(entry, registry, definitions, sections) for key, entry in node.items()}
    if "patternProperties" in opened:
        # Names that match no pattern would pass otherwise.
        opened["additionalProperties"] = False
    family = opened.pop("plugin_family", None)
    if family is not None:
        # An empty oneOf is no schema; without any plugin, nothing is valid.
        section = sections[opened.pop("$ref").rsplit("/", 1)[-1]]
        opened["oneOf"] = _choices(registry, family, definitions, section) or [{"not": {}}]
    return opened


def _choices(
    registry: Registry, family: str, definitions: dict[str, Any], section: dict[str, Any]
) -> list[dict[str, Any]]:
    choices = []
    for name in registry.names(family):
        offers = registry.families[family][name]
        if len(offers) == 1:
            choices.append(_choice(family, offers[0], definitions, section))
    return choices


def _choice(family: str, offer: Registered, definitions: dict[str, Any], section: dict[str, Any]) -> dict[str, Any]:
    from mta_framework.registry import describe

    name = offer.plugin.NAME
    prefix = f"{family}.{name}."
    params = offer.plugin.Params.model_json_schema(ref_template=f"#/$defs/{prefix}{{model}}")
    definitions.update({f"{prefix}{key}": entry for key, entry in params.pop("$defs", {}).items()})
    return {
        "type": "object",
        "description": describe(offer.plugin),
        "properties": {**section["properties"], "name": {"const": name}, "params": params},
        "required": [*section["required"], *(["params"] if params.get("required") else [])],
        "additionalProperties": False,
    }
