"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

spec_argument = click.argument("spec", type=click.Path(path_type=Path))


def _add_plugin_files(context: click.Context, _: click.Parameter, paths: tuple[Path, ...]) -> None:
    context.obj = (*(context.obj or ()), *paths)


plugin_option = click.option(
    "-p",
    "--plugin",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    expose_value=False,
    callback=_add_plugin_files,
    help="Load plugins from a Python file; repeatable.",
)
"""The option ``-p``, before or after the command; both add to ``context.obj``, which commands get by ``pass_obj``."""

set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the spec, e.g. training.epochs=3 or evaluation.metrics.0.name=rouge_l; repeatable. "
    "Paths are relative to the folder of the spec.",
)
