"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

spec_argument = click.argument("spec", type=click.Path(path_type=Path))

set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the spec, e.g. training.epochs=3 or evaluation.metrics.0.name=rouge_l; repeatable. "
    "Paths are relative to the folder of the spec.",
)
