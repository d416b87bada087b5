"""The ``mta`` command. Commands import their dependencies when they run, so that help is instant."""

from __future__ import annotations

import click

from mta_framework.cli.cache import cache
from mta_framework.cli.check import check
from mta_framework.cli.compare import compare
from mta_framework.cli.evaluate import evaluate
from mta_framework.cli.group import Commands
from mta_framework.cli.init import init
from mta_framework.cli.options import plugin_option
from mta_framework.cli.plugins import plugins
from mta_framework.cli.push import push
from mta_framework.cli.run import run
from mta_framework.cli.schema import schema
from mta_framework.cli.spans import spans
from mta_framework.cli.sweep import sweep


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@plugin_option
@click.version_option(package_name="mta-framework", prog_name="mta")
def main() -> None:
    """Distil language models with multi-granular trajectory alignment (MTA). A run is one JSON file, its spec.

    Exit codes: 0 success, 1 a run failed, 2 a fault in the input, 130 interrupted.
    """


for _command in (init, check, spans, cache, run, evaluate, compare, sweep, push, plugins, schema):
    main.add_command(_command)
