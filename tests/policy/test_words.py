"""One name, one thing: words that nobody would search for, and file names that stand for two things."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from sources import CORE, EXAMPLE, PLUGINS, ROOT, files, tree

SOURCES = files(CORE, PLUGINS, EXAMPLE, ROOT / "benchmarks")
SCRIPTS = [*files(ROOT / "tests", ROOT / "examples"), *(ROOT / "docs").glob("*.py")]

BANNED = {
    "told": "message, label or report",
    "found": "what was found: spans, match, difference",
    "place": "position, index, slot or field",
    "places": "positions, indices, slots or fields",
    "own": "student, or whose it is",
    "number": "index, where it is one",
    "numbers": "indices, where they are some",
    "wrong": "problem",
    "allowed": "expected",
    "todo": "hint",
    "dear": "expensive",
    "spent": "usage",
    "lineup": "run_models",
    "outline": "summary",
    "ledger": "meter",
    "stretch": "segment",
    "stretches": "segments",
    "readout": "head_inputs",
    "blaming": "faults_at",
    "naming": "as_plugin_error",
    "reunited": "gather",
    "facts": "what they are about: metrics, sets, evaluation",
}
"""Names, and words within names, that must not occur -> the field's words for them."""

NUMERIC_FILES = {"arithmetic.py", "exact_match.py", "html_text.py", "math.py", "test_math.py"}
"""Files in which a number is a number."""

FAMILIES = {"alignment_terms", "base_losses", "batch_policies", "importance_estimators", "layer_mappers", "metrics"}
FAMILIES |= {"span_extractors"}
COMMANDS = {"cache", "compare", "evaluate", "plan", "run", "scores", "sweep"}
PARALLEL_STEMS = {"__init__", "plugin", "rollouts", "cka", *FAMILIES, *COMMANDS}
"""File names that may occur more than once in the core and the plugins: packages, a contract and its tests, plugins
of two families that share a name, a command and what it calls."""

PARALLEL_NAMES = {"compare", "evaluate", "run", "escape"}
"""Public functions that two modules of the core have: a command and what it calls, and the renderers of a table."""

PHRASES = re.compile(
    r"\b(is|are) allowed[.;]|\bstretch(es)?\b|\bthe way of the data\b|\b(is|are) told\b"
    r"|\(got (\)|(no|none|a|an|nothing|fewer|more)\b)"  # no value is shown
    r"|\A(expected (?!\Z)|it must be\b)"  # ``Fault`` writes the word itself
)
"""What no docstring and no message says."""


def names(path: Path) -> Iterator[tuple[str, int]]:
    """Everything that a file gives a name to, with its line."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if not node.name.startswith("test_"):  # a contract test says what holds, in a sentence
                yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno


def words(name: str) -> list[str]:
    """``LossMeter`` -> loss, meter; ``_loss_SD`` -> loss, sd."""
    return [word.lower() for part in name.split("_") for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", part)]


def test_names_are_the_fields_words():
    hits = [
        f"{path.relative_to(ROOT)}:{line}: {name} ({word} -> {BANNED[word]})"
        for path in [*SOURCES, *SCRIPTS]
        for name, line in names(path)
        for word in words(name)
        if word in BANNED and not (word in {"number", "numbers"} and path.name in NUMERIC_FILES)
    ]
    assert not hits, "\n".join(hits)


def test_docstrings_and_messages_say_it_plainly():
    hits = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {match[0]}"
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for match in PHRASES.finditer(node.value)
    ]
    assert not hits, "\n".join(hits)


def test_a_file_name_stands_for_one_thing():
    paths = defaultdict(list)
    for path in files(CORE, PLUGINS):
        paths[path.stem].append(path.relative_to(ROOT).as_posix())
    repeated = {stem: where for stem, where in paths.items() if len(where) > 1 and stem not in PARALLEL_STEMS}
    assert not repeated


def test_a_public_name_stands_for_one_thing():
    paths = defaultdict(list)
    for path in files(CORE):
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith(("_", "mta_register")):
                paths[node.name].append(path.relative_to(ROOT).as_posix())
    assert not {name: where for name, where in paths.items() if len(where) > 1 and name not in PARALLEL_NAMES}
