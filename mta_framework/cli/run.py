"""``mta run``."""

from __future__ import annotations

import warnings
from pathlib import Path

import click

from mta_framework.cli.group import say, typed
from mta_framework.cli.options import plugin_option, set_option, spec_argument
from mta_framework.cli.scores import score_lines


@click.command()
@spec_argument
@set_option
@plugin_option
@click.option("--resume", is_flag=True, help="Continue an interrupted run from its last checkpoint.")
@click.option("--dry-run", is_flag=True, help="Read data and model configurations and print the plan; train nothing.")
@click.pass_obj
def run(plugin_files: tuple[Path, ...], spec: Path, overrides: tuple[str, ...], resume: bool, dry_run: bool) -> None:
    """Run a spec: train, evaluate and write a report."""
    from mta_framework.registry import discover
    from mta_framework.runs.plugin_binding import bind

    if resume and dry_run:
        raise click.UsageError("--resume has no effect with --dry-run.")
    # All faults of the input are known before torch is loaded.
    bound = bind(spec, discover(plugin_files), overrides)
    warnings.simplefilter("ignore", FutureWarning)  # of libraries, about each other: users cannot act on them
    from mta_framework.distributed import shutdown
    from mta_framework.runs import pipeline

    if dry_run:
        from mta_framework.cli.plan import plan_lines

        say(*plan_lines(pipeline.plan(bound)))
    else:
        report = pipeline.run(bound, resume, typed())
        say(*score_lines(report), f"Report: {bound.spec.folder / 'report.html'}")
    shutdown()
