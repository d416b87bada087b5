"""``mta spans``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mta_framework.cli.group import say
from mta_framework.cli.options import plugin_option, set_option, spec_argument
from mta_framework.tables.terminal import terminal_table, terminal_width

if TYPE_CHECKING:
    from mta_framework.errors import Fault
    from mta_framework.inspection.inspection import Inspection


@click.command()
@spec_argument
@set_option
@plugin_option
@click.option("--text", help="Show this text, without a template, instead of the training set.")
@click.option("--limit", type=click.IntRange(min=1), help="Number of texts to show, from the first.  [default: 5]")
@click.option(
    "--all",
    "whole",
    is_flag=True,
    help="Compute the statistics over the whole training set, not only over the texts shown.",
)
@click.option("--tokens", is_flag=True, help="Mark where the student's tokens begin.")
@click.option("--importance", is_flag=True, help="Load the teacher and show the token weights at its key layers.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a web page to this file instead.")
@click.pass_obj
def spans(
    plugin_files: tuple[Path, ...],
    spec: Path,
    overrides: tuple[str, ...],
    text: str | None,
    limit: int | None,
    whole: bool,
    tokens: bool,
    importance: bool,
    html: Path | None,
) -> None:
    """Show the spans of training texts, or of any text."""
    from mta_framework.errors import Fault, InputError
    from mta_framework.registry import discover
    from mta_framework.runs.plugin_binding import bind

    if text is not None and (whole or limit is not None):
        raise click.UsageError("--limit and --all have no effect with --text.")
    bound = bind(spec, discover(plugin_files), overrides)
    faults = [] if text is None else list(_text_faults(text))
    if bound.spans is None:
        hint = """Add it, e.g. --set 'alignment={"spans": {"name": "words"}}', with a teacher."""
        faults.append(Fault("alignment", "must be given to find spans (got null)", "an alignment section", hint))
    if faults:
        raise InputError(faults)
    from mta_framework.inspection.inspection import inspect

    inspection = inspect(bound, text, limit or 5, whole, tokens, importance)
    if html is None:
        say(*_lines(inspection), styled=True)
    else:
        _write(html, str(spec), inspection)


def _text_faults(text: str) -> Iterator[Fault]:
    from mta_framework.errors import Fault

    if not text:
        yield Fault(
            "--text", "is empty (got '')", "a text of at least one character", "Give a text, or leave out --text."
        )
    if any("\ud800" <= character <= "\udfff" for character in text):
        yield Fault("--text", "is not valid UTF-8", "text in the encoding of the terminal", "Correct it.")


def _lines(inspection: Inspection) -> Iterator[str]:
    from mta_framework.inspection.terminal_text import lines

    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for count, text in enumerate(inspection.texts, start=1):
        yield click.style(f"text {count}", bold=True) if colour else f"text {count}"
        yield from lines(text, terminal_width(), colour)
        yield ""
    yield from terminal_table(inspection.table)
    yield ""
    yield from inspection.notes


def _write(path: Path, title: str, inspection: Inspection) -> None:
    from mta_framework.errors import writing_to
    from mta_framework.reporting.span_html import spans_page
    from mta_framework.storage import write_atomically

    with writing_to(path, "name another file for --html"):
        write_atomically(path, spans_page(f"Spans of {title}", inspection.texts, inspection.table, inspection.notes))
    say(f"Written: {path}")
