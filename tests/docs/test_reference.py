"""The reference is complete and as the code is."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest
from blocks import ROOT

from mta_framework.registry import discover

PLUGIN_PAGES = ROOT / "docs" / "reference" / "plugins"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """``docs/generate_reference.py``."""
    module_spec = importlib.util.spec_from_file_location("generate_reference", ROOT / "docs" / "generate_reference.py")
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


def test_generated_regions_are_up_to_date(generator):
    outdated = [path for path, text in generator.pages().items() if path.read_text(encoding="utf-8") != text]
    assert outdated == [], "run: python docs/generate_reference.py"


@pytest.fixture(scope="module")
def plugin_pages(generator: ModuleType) -> dict[str, tuple[str, str]]:
    """Name of a page -> family and name of its plugin."""
    registry = generator.built_in(discover())
    plugins = [(family, name) for family, named in registry.families.items() for name in named]
    return {generator.page_of(registry, *plugin): plugin for plugin in plugins}


def test_every_built_in_plugin_has_a_page_and_every_page_a_plugin(plugin_pages):
    assert {path.stem for path in PLUGIN_PAGES.glob("*.md")} - {"README"} == set(plugin_pages)


def test_plugins_of_one_name_have_pages_that_name_their_families(plugin_pages):
    assert plugin_pages["layer_mapper_cka"] == ("layer_mappers", "cka")
    assert plugin_pages["alignment_term_cka"] == ("alignment_terms", "cka")
    assert plugin_pages["dsa"] == ("alignment_terms", "dsa")


@pytest.mark.parametrize("page", sorted(set(PLUGIN_PAGES.glob("*.md")) - {PLUGIN_PAGES / "README.md"}))
def test_plugin_page_has_its_name_its_own_options_and_its_source(plugin_pages, page):
    text = page.read_text(encoding="utf-8")
    family, name = plugin_pages[page.stem]
    assert text.startswith(f"# `{name}`\n")
    region = f"options {name}" if name == page.stem else f"options {family} {name}"
    assert re.findall(r"<!-- generated: (.+?) -->", text) == [region]
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Options", "Source and differences"]
