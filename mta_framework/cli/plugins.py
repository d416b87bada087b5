"""``mta plugins``, ``mta plugins NAME``."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mta_framework.cli.group import say, say_error
from mta_framework.cli.options import plugin_option
from mta_framework.cli.plugins_new import new
from mta_framework.tables.table import Table
from mta_framework.tables.terminal import terminal_table, terminal_width

if TYPE_CHECKING:
    from mta_framework.registry import Registered, Registry


class _Names(click.Group):
    """Treats every word that is not a subcommand as the name of a plugin."""

    def get_command(self, context: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(context, cmd_name) or _shower(cmd_name)


@click.group(cls=_Names, invoke_without_command=True, subcommand_metavar="[NAME | new KIND NAME]")
@plugin_option
@click.pass_context
def plugins(context: click.Context) -> None:
    """List all plugins, show the options of NAME, or write a new one.

    Exits with 1 if an installed plugin could not be loaded, or if two plugins have the same name.
    """
    if context.invoked_subcommand is not None:
        return
    from mta_framework.registry import discover

    registry = discover(context.obj or ())
    say(*terminal_table(Table(("NAME", "PROVIDER", "WHAT IT DOES"), list(_rows(registry)), alignment="lll")))
    problems = [*_problems(registry)]
    say_error(*problems)
    context.exit(1 if problems else 0)


plugins.add_command(new)


def _shower(name: str) -> click.Command:
    @click.command(name, help=f"Show the options of {name}.")
    @plugin_option
    @click.pass_obj
    def show(plugin_files: tuple[Path, ...]) -> None:
        from mta_framework.registry import discover

        say(*_options_of(discover(plugin_files), name))

    return show


def _rows(registry: Registry) -> Iterator[tuple[str, ...]]:
    from mta_framework.registry import describe

    for family, offers in registry.families.items():
        yield (family,)
        for name in sorted(offers):
            for offer in offers[name]:
                yield f"  {name}", offer.provider.split(" (")[0], describe(offer.plugin)


def _problems(registry: Registry) -> Iterator[str]:
    from mta_framework.registry import noun_of, sources_of

    for failure in registry.failures:
        yield f"Not loaded: {failure.provider}: {failure.reason}"
    for family, offers in registry.families.items():
        for name in (name for name in sorted(offers) if len(offers[name]) > 1):
            sources = sources_of(offers[name])
            yield f"Conflict: {noun_of(family)} {name!r} is provided by {sources}; no spec can use it."


def _options_of(registry: Registry, name: str) -> Iterator[str]:
    from mta_framework.errors import Fault, InputError, nearest

    known = sorted({known for family in registry.families for known in registry.names(family)})
    matches = [(family, offer) for family, offers in registry.families.items() for offer in offers.get(name, ())]
    if not matches:
        hint = nearest(name, known) or "See `mta plugins`."
        expected = f"one of the installed plugins: {', '.join(known) or 'none'}"
        raise InputError([Fault("mta plugins", f"no plugin is called {name!r}", expected, hint)])
    for family, offer in matches:
        yield from _described(family, offer)


def _described(family: str, offer: Registered) -> Iterator[str]:
    from mta_framework.registry import noun_of

    yield f"{noun_of(family)} {offer.plugin.NAME}, from {offer.provider}"
    yield ""
    for paragraph in inspect.cleandoc(offer.plugin.__doc__ or "").split("\n\n"):
        yield from (f"  {line}" for line in _filled(paragraph))
        yield ""
    options = Table(("OPTION", "VALUE", "DEFAULT", "WHAT IT DOES"), list(_option_rows(offer.schema)), alignment="llll")
    yield from terminal_table(options, indent="  ") if options else ["  No options."]
    yield ""


def _filled(paragraph: str) -> list[str]:
    """A paragraph at the width of the terminal; one with indented lines, such as a list, stays as it is."""
    return paragraph.splitlines() if "\n " in paragraph else textwrap.wrap(paragraph, terminal_width() - 2)


def _option_rows(schema: dict) -> Iterator[tuple[str, str, str, str]]:
    from mta_framework.spec.document import shown
    from mta_framework.spec.schema_text import phrase

    for name, option in schema.get("properties", {}).items():
        default = "required" if name in schema.get("required", ()) else shown(option.get("default"))
        yield name, phrase(schema, option), default, option.get("description", "")
        for option_path, inner in _inner_options(schema, option, name):
            yield option_path, phrase(schema, inner), "", inner.get("description", "")


def _inner_options(schema: dict, option: dict, option_path: str) -> Iterator[tuple[str, dict]]:
    from mta_framework.spec.schema_text import branches, fields_within

    for name, inner, _ in fields_within(schema, option):
        yield f"{option_path}.{name}", inner
    for branch in branches(schema, option):
        for name, inner, _ in fields_within(schema, branch.get("items") or {}):
            yield f"{option_path}.N.{name}", inner
