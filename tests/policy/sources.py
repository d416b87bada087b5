"""The project's own source files, parsed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ROOT / "mta_framework"
PLUGINS = ROOT / "plugins" / "mta_plugins"
EXAMPLE = ROOT / "docs" / "examples" / "mta-hello"


def files(*roots: Path) -> list[Path]:
    """All Python files below the roots, sorted."""
    return sorted(path for root in roots for path in root.rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_of(path: Path) -> str:
    """Dotted name, e.g. ``mta_framework.data.records``."""
    roots = (EXAMPLE / "src", EXAMPLE, PLUGINS.parent, ROOT)
    root = next(root for root in roots if root in path.parents)
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, only_at_import_time: bool = False) -> Iterator[str]:
    """Every imported module, function-local ones included; ``from a import b`` gives ``a`` and ``a.b``.

    With ``only_at_import_time``, those inside functions and ``if TYPE_CHECKING`` are left out.
    """
    nodes = _import_time_nodes(tree(path)) if only_at_import_time else ast.walk(tree(path))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _import_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _import_time_nodes(child)
