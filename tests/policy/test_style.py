"""Sizes, docstrings and words."""

from __future__ import annotations

import ast
import re
import statistics

import pytest
from sources import CORE, EXAMPLE, PLUGINS, ROOT, files, module_of, tree

SOURCES = files(CORE, PLUGINS, EXAMPLE / "src")
ALL = files(CORE, PLUGINS, EXAMPLE, ROOT / "tests", ROOT / "examples", ROOT / "benchmarks")


def functions(path):
    """All functions of a file."""
    return [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def length(node):
    """Lines of a function without its docstring."""
    start = node.body[0].end_lineno if ast.get_docstring(node) else node.lineno - 1
    return node.end_lineno - start


def test_files_are_short():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in ALL}
    assert not {path: count for path, count in lengths.items() if count > 400}
    assert statistics.median(lengths[path] for path in SOURCES) < 120


def test_functions_are_short():
    lengths = {f"{path.name}:{node.name}": length(node) for path in SOURCES for node in functions(path)}
    assert not {name: lines for name, lines in lengths.items() if lines > 60}
    assert statistics.median(lengths.values()) < 12


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_module_and_public_names_have_docstrings(path):
    module = tree(path)
    # An empty package file has nothing to say; hook implementations are documented by their specification.
    if not module.body:
        return
    assert ast.get_docstring(module), path
    if path.name == "hooks.py":
        return
    public = [node for node in module.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert not [node.name for node in public if not node.name.startswith("_") and not ast.get_docstring(node)]


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_nothing_is_left_undone(path):
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"TODO|FIXME|NotImplementedError|pdb|breakpoint\(", text)


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_no_way_to_run_foreign_code_from_data(path):
    text = path.read_text(encoding="utf-8")
    patterns = (
        r"trust_remote_code\s*=\s*True|weights_only\s*=\s*False|\bpickle\b|(?<!\.)\b(eval|exec)\(|os\.system|shell=True"
    )
    assert not re.search(patterns, text)
