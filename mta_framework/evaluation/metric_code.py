"""The code of a metric: a metric that was corrected must score again."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mta_framework.evaluation.environment import package_versions
from mta_framework.interfaces import Metric
from mta_framework.storage import file_digest, json_digest

_CONTRACT = "mta_framework"


def code_digest(metric: Metric) -> str:
    """Digest of the code that the scores of a metric depend on.

    It covers all modules of the package that a class of the metric comes from; of a class in a single file, such as one
    given by ``-p``, that file and the Python files beside it that it imports, directly or not. It also covers the
    versions of mta-framework and of the metric's ``PACKAGES``.

    Args:
        metric: Any metric.
    """
    modules = {base.__module__.partition(".")[0] for base in type(metric).__mro__}
    packages = sorted(modules - {_CONTRACT} - sys.stdlib_module_names)
    code = [[list(entry) for entry in _files(name)] for name in packages]
    return json_digest([code, package_versions(("mta-framework", *metric.PACKAGES))])


def _files(module_name: str) -> Iterator[tuple[str, str]]:
    """Name and digest of each file of a top-level module."""
    module = sys.modules.get(module_name)
    for folder in map(Path, getattr(module, "__path__", ())):
        for path in sorted(folder.rglob("*.py")):
            yield path.relative_to(folder).as_posix(), file_digest(path)
    path = Path(getattr(module, "__file__", None) or "")
    if path.is_file() and not hasattr(module, "__path__"):
        for file in sorted(_with_imported_siblings(path)):
            # A plugin file may lie under another path than before.
            yield file.name, file_digest(file)


def _with_imported_siblings(path: Path) -> set[Path]:
    """A Python file with the files in its folder that it imports, those that they import, and so on."""
    files, waiting = set(), [path]
    while waiting:
        file = waiting.pop()
        files.add(file)
        siblings = {file.with_name(f"{name}.py") for name in _imported(file)}
        waiting += [sibling for sibling in siblings - files if sibling.is_file()]
    return files


def _imported(path: Path) -> set[str]:
    """Names of the top-level modules that a file imports anywhere."""
    names: set[str] = set()
    with suppress(SyntaxError, ValueError):  # it cannot be imported, so its content is all that counts
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names
