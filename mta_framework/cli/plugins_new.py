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

KINDS = ("span_extractor", "importance_estimator", "layer_mapper", "alignment_term", "base_loss", "metric")
_NAME = r"[a-z][a-z0-9_]{0,59}"


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Folder to create; nothing is overwritten.  [default: mta-NAME]"
)
@plugin_option
@click.pass_obj
def new(plugin_files: tuple[Path, ...], kind: str, name: str, folder: Path | None) -> None:
    """Write a new working plugin with tests, as a distribution with an entry point.

    KIND is the family, NAME the name of the plugin in a spec.
    """
    from mta_framework.errors import Fault, InputError, refusal
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
        problem = f"cannot be written (got {folder}: {refusal(error, folder)})"
        raise InputError([Fault("--folder", problem, "a folder that can be created", "Choose another.")]) from error
    say(f"Wrote {folder}:", *terminal_list(_descriptions(content, kind)))
    say("Next, in that folder:", '  python -m pip install -e ".[test]"', "  python -m pytest")


def _name_faults(name: str, kind: str, registry: Registry) -> Iterator[Fault]:
    from mta_framework.errors import Fault

    if not re.fullmatch(_NAME, name):
        expected = "a lower-case letter, then at most 59 lower-case letters, digits and _"
        yield Fault("NAME", f"is not a valid plugin name (got {name!r})", expected, "Choose another name.")
        return
    taken = {"new": "`mta plugins new` is a command", "hooks": "the module with the hooks has this name"}
    reason = taken.get(name) or (f"{name} is a keyword of Python" if keyword.iskeyword(name) else None)
    if reason is None and find_spec(f"mta_{name}") is not None:
        reason = f"a package mta_{name} is installed already"
    offers = registry.families[_family(kind)].get(name, [])
    if offers:
        reason = f"{offers[0].provider} has a {kind.replace('_', ' ')} of this name"
    if reason:
        yield Fault("NAME", f"cannot be used, since {reason} (got {name!r})", "any other name", "Choose another name.")


def _folder_faults(folder: Path) -> Iterator[Fault]:
    from mta_framework.errors import Fault

    if folder.exists() or folder.is_symlink():
        yield Fault("--folder", f"already exists (got {folder})", "a new folder", "Choose another, or remove it.")
    elif not folder.parent.is_dir():
        yield Fault(
            "--folder",
            f"has no parent folder (got {folder})",
            "a new folder in an existing one",
            "Create the parent folder.",
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
    """The name in CapWords, distinct from all other names in the files."""
    joined = "".join(part.capitalize() for part in name.split("_"))
    return f"{joined}Plugin" if joined in re.findall(r"\w+", text) or keyword.iskeyword(joined) else joined


def _section(kind: str, name: str) -> dict[str, Any]:
    from mta_framework.spec.alignment import AlignmentSection

    choice = {"name": name}
    if kind == "base_loss":
        return {"base_loss": choice}
    if kind == "metric":
        return {"evaluation": {"metrics": [choice]}}
    if kind == "alignment_term":
        return {"alignment": {"terms": [{**choice, "weight": 1.0}]}}
    if kind == "span_extractor":
        # The extractor provides words only, and the default layer mapper also uses phrases.
        mapper = AlignmentSection.model_fields["layers"].default.name
        return {"alignment": {"spans": choice, "layers": {"name": mapper, "params": {"words": 3, "phrases": 0}}}}
    field = {"importance_estimator": "importance", "layer_mapper": "layers"}[kind]
    return {"alignment": {field: choice}}


def _descriptions(content: Mapping[str, str], kind: str) -> Iterator[tuple[str, str]]:
    meaning = {
        "hooks.py": "registers the plugin",
        "pyproject.toml": "the distribution and its entry point",
        "README.md": "how to install, test and use it",
    }
    for path, text in content.items():
        if text:
            default = "the contract tests" if path.startswith("tests") else f"the {kind.replace('_', ' ')}"
            yield path, meaning.get(Path(path).name, default)


def _write(folder: Path, content: Mapping[str, str]) -> None:
    """Write to a temporary folder and move it, so that the folder is complete or absent."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        for path, text in content.items():
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            (temporary / path).write_text(text, encoding="utf-8")
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
