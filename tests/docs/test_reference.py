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


def test_every_built_in_plugin_has_a_page_and_every_page_a_plugin(generator):
    families = generator.built_in(discover()).families.values()
    names = {name for named in families for name in named}
    assert {path.stem for path in PLUGIN_PAGES.glob("*.md")} - {"README"} == names


@pytest.mark.parametrize("page", sorted(set(PLUGIN_PAGES.glob("*.md")) - {PLUGIN_PAGES / "README.md"}))
def test_plugin_page_has_its_name_its_own_options_and_its_source(page):
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# `{page.stem}`\n")
    assert re.findall(r"<!-- generated: (.+?) -->", text) == [f"options {page.stem}"]
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Options", "Source and differences"]
