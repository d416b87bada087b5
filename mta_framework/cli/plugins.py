"""``mta plugins``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mta_framework.cli.group import say, say_error
from mta_framework.cli.options import plugin_option
from mta_framework.cli.table import table

if TYPE_CHECKING:
    from mta_framework.registry import Registered, Registry


@click.command()
@click.argument("name", required=False)
@plugin_option
@click.pass_obj
def plugins(plugin_files: tuple[Path, ...], name: str | None) -> None:
    """List all plugins, or the options of NAME."""
    from mta_framework.registry import discover

    registry = discover(plugin_files)
    if name is not None:
        say(*_options_of(registry, name))
        return
    say(*table([("FAMILY", "NAME", "PROVIDER", "WHAT IT DOES"), *_rows(registry)]))
    say_error(*_problems(registry))


def _rows(registry: Registry) -> Iterator[tuple[str, str, str, str]]:
    from mta_framework.registry import describe

    for family, offers in registry.families.items():
        for name in sorted(offers):
            for offer in offers[name]:
                yield family, name, offer.provider.split(" (")[0], describe(offer.plugin)


def _problems(registry: Registry) -> Iterator[str]:
    from mta_framework.registry import noun_of

    for failure in registry.failures:
        yield f"Not loaded: {failure.provider}: {failure.reason}"
    for family, offers in registry.families.items():
        for name in (name for name in sorted(offers) if len(offers[name]) > 1):
            providers = " and ".join(offer.provider for offer in offers[name])
            yield f"Conflict: {noun_of(family)} {name!r} comes from {providers}; no spec can name it."


def _options_of(registry: Registry, name: str) -> Iterator[str]:
    from mta_framework.errors import Fault, InputError, nearest

    known = sorted({known for family in registry.families for known in registry.names(family)})
    found = [(family, offer) for family, offers in registry.families.items() for offer in offers.get(name, ())]
    if not found:
        todo = nearest(name, known) or "See `mta plugins`."
        allowed = f"installed: {', '.join(known) or 'none'}"
        raise InputError([Fault("mta plugins", f"no plugin is called {name!r} (got {name!r})", allowed, todo)])
    for family, offer in found:
        yield from _described(family, offer)


def _described(family: str, offer: Registered) -> Iterator[str]:
    from mta_framework.registry import noun_of

    yield f"{noun_of(family)} {offer.plugin.NAME}, from {offer.provider}"
    yield ""
    for line in inspect.cleandoc(offer.plugin.__doc__ or "").splitlines():
        yield f"  {line}".rstrip()
    yield ""
    rows = list(_option_rows(offer.schema))
    yield from table([("OPTION", "VALUE", "DEFAULT", "WHAT IT DOES"), *rows], "  ") if rows else ["  No options."]
    yield ""


def _option_rows(schema: dict) -> Iterator[tuple[str, str, str, str]]:
    from mta_framework.spec.document import shown
    from mta_framework.spec.outline import phrase

    for name, option in schema.get("properties", {}).items():
        default = "required" if name in schema.get("required", ()) else shown(option.get("default"))
        yield name, phrase(schema, option), default, option.get("description", "")
        for place, inner in _inner_options(schema, option, name):
            yield place, phrase(schema, inner), "", inner.get("description", "")


def _inner_options(schema: dict, option: dict, place: str) -> Iterator[tuple[str, dict]]:
    from mta_framework.spec.outline import branches, fields_within

    for name, inner, _ in fields_within(schema, option):
        yield f"{place}.{name}", inner
    for branch in branches(schema, option):
        for name, inner, _ in fields_within(schema, branch.get("items") or {}):
            yield f"{place}.N.{name}", inner
