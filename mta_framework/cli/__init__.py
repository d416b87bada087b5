"""The ``mta`` command. Commands import what they need when they run, so that help is instant."""

from __future__ import annotations

from pathlib import Path

import click

from mta_framework.cli.check import check
from mta_framework.cli.group import Commands
from mta_framework.cli.init import init
from mta_framework.cli.plugins import plugins
from mta_framework.cli.run import run
from mta_framework.cli.schema import schema


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-p",
    "--plugin",
    "plugin_files",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Load a Python file with plugins; repeatable. It stands before the command.",
)
@click.version_option(package_name="mta-framework", prog_name="mta")
@click.pass_context
def main(context: click.Context, plugin_files: tuple[Path, ...]) -> None:
    """Distil language models with multi-granular trajectory alignment: one JSON file is one run.

    Exits with 0 when all went well, 1 when a run failed, 2 when the input was at fault.
    """
    context.obj = plugin_files


for _command in (init, check, run, plugins, schema):
    main.add_command(_command)
