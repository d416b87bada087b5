"""``mta plugins new``."""

from __future__ import annotations

import json
import keyword
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import click

from mta_framework.cli.group import say
from mta_framework.cli.options import plugin_option
from mta_framework.tables.terminal import terminal_list

if TYPE_CHECKING:
    from mta_framework.errors import Fault
    from mta_framework.registry import Registry

KINDS = ("span_extractor", "importance_estimator", "layer_mapper", "base_loss", "metric")
_NAME = r"[a-z][a-z0-9_]{0,59}"


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="The new folder; nothing is overwritten.  [default: mta-NAME]"
)
@plugin_option
@click.pass_obj
def new(plugin_files: tuple[Path, ...], kind: str, name: str, folder: Path | None) -> None:
    """Write a new plugin that works, with tests, to go on from.

    It is a distribution with an entry point. KIND is the family, NAME what a spec will call the plugin.
    """
    from mta_framework.errors import Fault, InputError
    from mta_framework.registry import discover

    distribution = f"mta-{name.replace('_', '-').strip('-')}"
    folder = folder or Path(distribution)
    faults = [*_name_faults(name, kind, discover(plugin_files)), *_folder_faults(folder)]
    if faults:
        raise InputError(faults)
    content = _content(kind, name, distribution)
    try:
        _write(folder, content)
    except OSError as error:
        problem = f"cannot be written (got {folder}: {error.strerror or error})"
        raise InputError([Fault("--folder", problem, "a folder that can be made", "Choose another.")]) from error
    say(f"Wrote {folder}:", *terminal_list(_told(content, kind)))
    say("Next, in that folder:", '  python -m pip install -e ".[test]"', "  python -m pytest")


def _name_faults(name: str, kind: str, registry: Registry) -> Iterator[Fault]:
    from mta_framework.errors import Fault

    if not re.fullmatch(_NAME, name):
        expected = "a small letter, then at most 59 small letters, digits and _"
        yield Fault("NAME", f"is no name for a plugin (got {name!r})", expected, "Choose another name.")
        return
    taken = {"new": "`mta plugins new` is a command", "hooks": "a plugin's module can't be called like its hooks"}
    reason = taken.get(name) or (f"{name} is a word of Python" if keyword.iskeyword(name) else None)
    if reason is None and find_spec(f"mta_{name}") is not None:
        reason = f"a package mta_{name} is installed already"
    offers = registry.families[_family(kind)].get(name, [])
    if offers:
        reason = f"{offers[0].provider} has a {kind.replace('_', ' ')} of this name"
    if reason:
        yield Fault("NAME", f"can't be used: {reason} (got {name!r})", "any other name", "Choose another name.")


def _folder_faults(folder: Path) -> Iterator[Fault]:
    from mta_framework.errors import Fault

    if folder.exists() or folder.is_symlink():
        yield Fault("--folder", f"is already there (got {folder})", "a new folder", "Choose another, or remove it.")
    elif not folder.parent.is_dir():
        yield Fault(
            "--folder", f"lies in no folder (got {folder})", "a new folder in one that is there", "Create that."
        )


def _family(kind: str) -> str:
    from mta_framework.registry import FAMILIES, noun_of

    return next(family for family in FAMILIES if noun_of(family) == kind.replace("_", " "))


def _content(kind: str, name: str, distribution: str) -> dict[str, str]:
    """The files of the distribution: path -> text."""
    from mta_framework import __version__
    from mta_framework.registry import FAMILIES

    package, family = f"mta_{name}", _family(kind)
    texts = {part: _template(part) for part in ("pyproject.toml", "README.md", "hooks.py", "test.py", f"{kind}.py")}
    values = {
        "name": name,
        "noun": kind.replace("_", " "),
        "family": family,
        "contract": FAMILIES[family].__name__,
        "class_name": _class_name(name, "".join(texts.values())),
        "distribution": distribution,
        "package": package,
        "version": __version__,
        "section": json.dumps(_section(kind, name)),
    }
    filled = {part: Template(text).substitute(values) for part, text in texts.items()}
    return {
        "pyproject.toml": filled["pyproject.toml"],
        "README.md": filled["README.md"],
        f"src/{package}/__init__.py": "",
        f"src/{package}/hooks.py": filled["hooks.py"],
        f"src/{package}/{name}.py": filled[f"{kind}.py"],
        f"tests/test_{name}.py": filled["test.py"],
    }


def _template(part: str) -> str:
    return files("mta_framework.cli").joinpath("templates", f"{part}.template").read_text(encoding="utf-8")


def _class_name(name: str, text: str) -> str:
    """In capitals, and none of the names that the files use otherwise."""
    joined = "".join(part.capitalize() for part in name.split("_"))
    return f"{joined}Plugin" if joined in re.findall(r"\w+", text) or keyword.iskeyword(joined) else joined


def _section(kind: str, name: str) -> dict[str, Any]:
    choice = {"name": name}
    if kind == "base_loss":
        return {"base_loss": choice}
    if kind == "metric":
        return {"evaluation": {"metrics": [choice]}}
    if kind == "span_extractor":
        # It gives words only, and a layer mapper asks for phrases too by default.
        return {
            "alignment": {"spans": choice, "layers": {"name": "proportional", "params": {"words": 3, "phrases": 0}}}
        }
    field = {"importance_estimator": "importance", "layer_mapper": "layers"}[kind]
    return {"alignment": {field: choice}}


def _told(content: Mapping[str, str], kind: str) -> Iterator[tuple[str, str]]:
    meaning = {
        "hooks.py": "offers the plugin",
        "pyproject.toml": "the distribution and its entry point",
        "README.md": "how to install, test and use it",
    }
    for path, text in content.items():
        if text:
            default = "the contract tests" if path.startswith("tests") else f"the {kind.replace('_', ' ')}"
            yield path, meaning.get(Path(path).name, default)


def _write(folder: Path, content: Mapping[str, str]) -> None:
    """To the side, then in place: the folder is there whole or not at all."""
    side = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        for path, text in content.items():
            (side / path).parent.mkdir(parents=True, exist_ok=True)
            (side / path).write_text(text, encoding="utf-8")
        side.rename(folder)
    finally:
        shutil.rmtree(side, ignore_errors=True)
