"""Regenerate the marked regions of the documentation from the spec's sections, commands, plugins and kept runs.

    python docs/generate_reference.py

A region is the text between ``<!-- generated: NAME -->`` and ``<!-- end -->``; everything else is written by hand.
"""

from __future__ import annotations

import csv
import inspect
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

import mta_framework
from mta_framework import testing
from mta_framework.cli import main as mta
from mta_framework.comparison.outcome_tables import outcome_table
from mta_framework.comparison.outcomes import outcome_contrasts
from mta_framework.comparison.results import Comparison, Row, ValidationOutcome
from mta_framework.interfaces import Plugin
from mta_framework.registry import FAMILIES, Registry, describe, discover, noun_of
from mta_framework.spec.document import shown
from mta_framework.spec.effects import effect_of
from mta_framework.spec.evaluation_spec import EvaluationSpec
from mta_framework.spec.run import RunSpec
from mta_framework.spec.schema_text import branches, fields_within, phrase
from mta_framework.spec.section import Section
from mta_framework.spec.sweep import SweepSpec
from mta_framework.tables.markdown import markdown_table

ROOT = Path(__file__).resolve().parents[1]
PLUGIN_PAGES = ROOT / "docs" / "reference" / "plugins"
BUILT_IN = "mta-framework "
_REGION = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_WIDTH = 100


def pages() -> dict[Path, str]:
    """Every page with a generated region -> the text that it should have."""
    registry = built_in(discover())
    docs = ROOT / "docs"
    candidates = [ROOT / "README.md", docs / "results.md", *sorted((docs / "reference").rglob("*.md"))]
    texts = {path: path.read_text(encoding="utf-8") for path in candidates}
    return {path: _filled(path, text, registry) for path, text in texts.items() if _REGION.search(text)}


def built_in(registry: Registry) -> Registry:
    """The plugins of this distribution, without those of other installed ones.

    Raises:
        SystemExit: Some of it could not be loaded.
    """
    failures = [failure for failure in registry.failures if failure.provider.startswith(BUILT_IN)]
    if failures:
        raise SystemExit("\n".join(f"{failure.provider}: {failure.reason}" for failure in failures))
    filtered = Registry()
    for family, offers in registry.families.items():
        for name, providers in offers.items():
            kept = [offer for offer in providers if offer.provider.startswith(BUILT_IN)]
            filtered.families[family] |= {name: kept} if kept else {}
    return filtered


def _filled(path: Path, text: str, registry: Registry) -> str:
    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}{_region(match[2], path, registry)}\n{match[3]}"

    return _REGION.sub(fill, text)


def _region(name: str, path: Path, registry: Registry) -> str:
    kind, _, rest = name.partition(" ")
    writers = {
        "spec": lambda: _sections(RunSpec),
        "sweep": lambda: _sections(SweepSpec),
        "evaluation": _evaluation,
        "commands": _commands,
        "plugins": lambda: _plugins(registry, path),
        "options": lambda: _options(registry, *rest.split()),
        "contract": lambda: _contract(rest),
        "value": lambda: _value(rest),
        "checks": lambda: _checks(rest),
        "runs": lambda: _outcome_of_runs(*rest.split(maxsplit=1)),
    }
    return "\n".join(writers[kind]())


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        cells = (cell.replace("|", r"\|").replace("*", r"\*") for cell in row)
        yield f"| {' | '.join(cells)} |"


def _sections(kind: type[Section]) -> Iterator[str]:
    schema = kind.model_json_schema()
    for name, locations in _occurrences(schema).items():
        node = schema["$defs"][name] if name else schema
        yield f"### {_heading(name)}"
        yield ""
        if name:
            yield f"At {', '.join(f'`{location}`' for location in locations)}. {node['description']}"
            yield ""
        yield from _field_table(kind, locations, node)
        yield ""


def _field_table(kind: type[Section], locations: Sequence[str], node: dict[str, Any]) -> Iterator[str]:
    """The fields of a section; those of a run or an evaluation with what they affect."""
    rows = list(_fields(kind.model_json_schema(), node))
    if kind is SweepSpec:
        return _table(("field", "value", "default", "what it is"), rows)
    full = [(field, value, default, _effects(kind, locations, field), what) for field, value, default, what in rows]
    return _table(("field", "value", "default", "affects", "what it is"), full)


def _effects(kind: type[Section], locations: Sequence[str], field: str) -> str:
    names = [".".join(filter(None, (location, field.strip("`")))) for location in locations]
    return " or ".join(dict.fromkeys(effect_of(kind, name) for name in names))


def _evaluation() -> Iterator[str]:
    schema = EvaluationSpec.model_json_schema()
    yield from _field_table(EvaluationSpec, ("",), schema)
    yield from ("", "### Model section", "")
    yield from _field_table(EvaluationSpec, ("model",), schema["$defs"]["ModelSection"])
    yield ""


def _occurrences(schema: dict[str, Any]) -> dict[str, list[str]]:
    """Definition -> the dotted places where it occurs, in the order of the spec; the spec itself is the empty name."""
    occurrences: dict[str, list[str]] = {"": [""]}

    def walk(node: dict[str, Any], prefix: str) -> None:
        for field, child in node["properties"].items():
            for name, suffix in _references(child):
                inner = f"{prefix}{field}{suffix}"
                occurrences.setdefault(name, []).append(inner)
                walk(schema["$defs"][name], f"{inner}.")

    walk(schema, "")
    return occurrences


def _references(node: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Names of the definitions inside a field, with what its place has behind the field's name."""
    if "$ref" in node:
        yield node["$ref"].rsplit("/", 1)[-1], ""
    for option in node.get("anyOf", ()):
        yield from _references(option)
    named = [*node.get("patternProperties", {}).values(), node.get("additionalProperties")]
    for entry, suffix in [(node.get("items"), ".N"), *((entry, ".NAME") for entry in named)]:
        if isinstance(entry, dict):
            yield from ((name, suffix + rest) for name, rest in _references(entry))


def _heading(name: str) -> str:
    # An evaluation by itself has the section of a run, but for the choice of models.
    return name.replace("Scoring", "Evaluation").removesuffix("Section") + " section" if name else "Top level"


def _fields(schema: dict[str, Any], node: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for field, child in node["properties"].items():
        inner = dict(_references(child))
        value = ": ".join([phrase(schema, child), *map(_link, inner.items())])
        # A field that is described in the words of its section has no description of its own.
        what = child.get("description") or schema["$defs"][next(iter(inner))]["description"]
        yield f"`{field}`", value, _default(child, field in node.get("required", ())), what


def _link(reference: tuple[str, str]) -> str:
    name, suffix = reference
    heading = _heading(name)
    link = f"[{heading}](#{heading.lower().replace(' ', '-')})"
    return f"names, and for each the {link}" if suffix == ".NAME" else link


def _default(node: dict[str, Any], required: bool) -> str:
    # The schema leaves out defaults that are made anew each time: empty objects.
    return "required" if required else f"`{shown(node.get('default', {}))}`"


def _commands() -> Iterator[str]:
    group = click.Context(mta, info_name="mta", terminal_width=_WIDTH, **mta.context_settings)
    yield from _help("mta", mta, group)
    yield from _commands_of(mta, group)


def _commands_of(group: click.Group, context: click.Context) -> Iterator[str]:
    for name, command in group.commands.items():
        inner = click.Context(command, context, name, terminal_width=_WIDTH)
        yield ""
        yield from _help(inner.command_path, command, inner)
        if isinstance(command, click.Group):
            yield from _commands_of(command, inner)


def _help(title: str, command: click.Command, context: click.Context) -> Iterator[str]:
    yield from (f"## {title}", "", "```text", command.get_help(context), "```")


def _plugins(registry: Registry, path: Path) -> Iterator[str]:
    pages_folder = Path(os.path.relpath(PLUGIN_PAGES, path.parent)).as_posix()
    rows = (
        (
            noun_of(family),
            f"[`{name}`]({pages_folder}/{page_of(registry, family, name)}.md)",
            describe(offers[0].plugin),
        )
        for family, named in registry.families.items()
        for name, offers in sorted(named.items())
    )
    return _table(("family", "name", "what it does"), rows)


def page_of(registry: Registry, family: str, name: str) -> str:
    """The page of a plugin: its name, after the noun of its family where several families have one of this name."""
    shared = sum(name in named for named in registry.families.values()) > 1
    return f"{noun_of(family).replace(' ', '_')}_{name}" if shared else name


def _options(registry: Registry, *plugin: str) -> Iterator[str]:
    """The options of a plugin: ``NAME``, or ``FAMILY NAME`` where several families have one of this name."""
    *family, name = plugin
    named = [registry.families[key] for key in family or registry.families]
    (offer,) = (offers[name][0] for offers in named if name in offers)
    rows = list(_option_rows(offer.schema, offer.schema, ""))
    return _table(("option", "value", "default", "what it does"), rows) if rows else iter(("No options.",))


def _option_rows(schema: dict[str, Any], node: dict[str, Any], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    for name, option, required in fields_within(schema, node):
        yield f"`{prefix}{name}`", phrase(schema, option), _default(option, required), option.get("description", "")
        yield from _option_rows(schema, option, f"{prefix}{name}.")
        for branch in branches(schema, option):
            yield from _option_rows(schema, branch.get("items") or {}, f"{prefix}{name}.N.")


def _contract(family: str) -> Iterator[str]:
    """What a plugin defines or may define, as the docstrings say it."""
    contract = FAMILIES[family]
    yield from ("```text", inspect.cleandoc(contract.__doc__ or ""), "```")
    for name, member in {**vars(contract), "require": Plugin.require}.items():
        function = member.fget if isinstance(member, property) else member
        if name.startswith("_") or not inspect.isfunction(function):
            continue
        kind = "property " if isinstance(member, property) else ""
        needed = "must be defined" if name in contract.__abstractmethods__ else "may be overridden"
        signature = (
            "" if isinstance(member, property) else f"({', '.join([*inspect.signature(function).parameters][1:])})"
        )
        yield from ("", f"### `{name}{signature}`", "", f"This {kind}{needed}.", "")
        yield from ("```text", inspect.cleandoc(function.__doc__ or ""), "```")


def _value(name: str) -> Iterator[str]:
    """What a public value type holds, as its docstring says it."""
    yield from ("```text", inspect.cleandoc(getattr(mta_framework, name).__doc__ or ""), "```")


def _checks(family: str) -> Iterator[str]:
    """The names of the contract tests, as sentences; those that all families share come last."""
    contract = getattr(testing, f"{FAMILIES[family].__name__}Contract")
    for part in contract.__mro__:
        for name in vars(part):
            if name.startswith("test_"):
                yield f"- {name.removeprefix('test_').replace('_', ' ')}"


def _outcome_of_runs(sweep: str, column: str) -> Iterator[str]:
    """The table of an outcome of the runs that are kept in ``docs/evidence``.

    Args:
        sweep: Folder of the runs; with ``/N`` after it, Holm's correction counts N tests, also while some are to come.
        column: The outcome; runs without it are left out.

    Raises:
        SystemExit: The runs have no such column.
    """
    sweep, _, planned = sweep.partition("/")
    path = ROOT / "docs" / "evidence" / sweep / "runs.csv"
    values: dict[str, dict[int, float]] = {}
    baselines: dict[str, str] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if column not in (reader.fieldnames or ()):
            raise SystemExit(f"{path}: has no column {column!r} (got {', '.join(reader.fieldnames or ())})")
        for run in reader:
            if run[column]:
                values.setdefault(run["row"], {})[int(run["seed"])] = float(run[column])
                if run["compared_with"]:
                    baselines[run["row"]] = run["compared_with"]
    contrasts = outcome_contrasts(values, baselines, int(planned or 0))
    outcome = ValidationOutcome(column, column, None, values, contrasts)
    rows = tuple(Row(row, baselines.get(row), (), {}) for row in values)
    yield markdown_table(outcome_table(Comparison((), (), rows, (), (), (), ()), outcome)).rstrip("\n")


def main() -> None:
    """Write every page whose generated region is out of date."""
    for path, text in pages().items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
