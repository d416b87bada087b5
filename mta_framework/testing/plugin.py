"""Contract tests that every plugin must pass, whatever its family."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from mta_framework.interfaces import Plugin
from mta_framework.registry import class_fault, describe

_HEAVY = ("torch", "transformers", "datasets", "spacy", "stanza")


class PluginContract:
    """Tests of any plugin, which the fixture ``plugin`` returns.

    Attributes:
        CONTRACT: Contract of the plugin's family.
    """

    CONTRACT: ClassVar[type[Plugin]]

    def test_the_class_can_be_registered_and_says_what_it_is(self, plugin: Plugin) -> None:
        assert class_fault(self.CONTRACT, type(plugin)) is None
        assert describe(type(plugin)), "add a docstring: `mta plugins` shows its first line"
        assert isinstance(plugin.params, type(plugin).Params)

    def test_what_it_needs_is_here(self, plugin: Plugin) -> None:
        missing = plugin.require()
        assert missing is None, missing

    def test_unknown_options_are_refused(self, plugin: Plugin) -> None:
        given = plugin.params.model_dump(mode="json")
        with pytest.raises(ValidationError, match="no_such_option"):
            type(plugin).Params.model_validate({**given, "no_such_option": 1})

    def test_options_cannot_be_changed(self, plugin: Plugin) -> None:
        for name in type(plugin).Params.model_fields:
            with pytest.raises(ValidationError, match="frozen"):
                setattr(plugin.params, name, getattr(plugin.params, name))

    def test_options_survive_a_round_trip_through_a_spec(self, plugin: Plugin) -> None:
        written = plugin.params.model_dump_json()
        assert type(plugin).Params.model_validate_json(written, strict=True) == plugin.params

    def test_every_option_is_described_and_every_number_bounded(self, plugin: Plugin) -> None:
        schema = type(plugin).Params.model_json_schema()
        options = [*_options(schema)]
        assert [name for name, option in options if not option.get("description")] == []
        assert [name for name, option in options if not all(map(_is_bounded, _numeric_options(option)))] == []

    def test_its_module_loads_no_heavy_library(self, plugin: Plugin) -> None:
        module, path = type(plugin).__module__, inspect.getfile(type(plugin))
        # A plugin file has no module that another process could import.
        load = f"try:\n    importlib.import_module({module!r})\nexcept ImportError:\n    runpy.run_path({path!r})\n"
        code = f"import importlib, runpy, sys\n{load}print(*(set(sys.modules) & set({_HEAVY})))"
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
        assert done.stdout.split() == [], "import them inside methods: `mta check` and `mta plugins` must be fast"


def _options(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """All options, including those of sections and alternatives within them."""
    for definition in (schema, *schema.get("$defs", {}).values()):
        for name, option in definition.get("properties", {}).items():
            if "const" not in option:  # it tells alternatives apart
                yield name, option


def _numeric_options(option: Any) -> Iterator[dict[str, Any]]:
    for value in option.values() if isinstance(option, dict) else option if isinstance(option, list) else ():
        yield from _numeric_options(value)
    if isinstance(option, dict) and option.get("type") in ("integer", "number") and "enum" not in option:
        yield option


def _is_bounded(schema: dict[str, Any]) -> bool:
    return any(re.fullmatch(r"(exclusive)?(min|max)imum", key, re.IGNORECASE) for key in schema)


def copied_state(state: Any) -> Any:
    """Copy a state through JSON, as a checkpoint does."""
    return json.loads(json.dumps(state, allow_nan=False))
