"""``mta run``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mta_framework.cli.group import is_main_process, say, say_error, typed
from mta_framework.cli.options import plugin_option, set_option, spec_argument
from mta_framework.cli.scores import score_lines
from mta_framework.errors import RunError

if TYPE_CHECKING:
    from mta_framework.runs.folder import RunFolder


@click.command()
@spec_argument
@set_option
@plugin_option
@click.option("--resume", is_flag=True, help="Continue an interrupted run from its last checkpoint.")
@click.option("--dry-run", is_flag=True, help="Read data and model configurations and print the plan; train nothing.")
@click.option(
    "--push-to-hub",
    "repository",
    metavar="REPO",
    help="Upload student and model card to this repository of the Hugging Face hub in the end; a new one is private.",
)
@click.pass_obj
def run(
    plugin_files: tuple[Path, ...],
    spec: Path,
    overrides: tuple[str, ...],
    resume: bool,
    dry_run: bool,
    repository: str | None,
) -> None:
    """Run a spec: train, evaluate and write a report."""
    from mta_framework.registry import discover
    from mta_framework.runs.plugin_binding import bind

    if resume and dry_run:
        raise click.UsageError("--resume has no effect with --dry-run.")
    if repository is not None and dry_run:
        raise click.UsageError("--push-to-hub has no effect with --dry-run.")
    # All faults of the input are known before torch is loaded.
    bound = bind(spec, discover(plugin_files), overrides)
    warnings.simplefilter("ignore", FutureWarning)  # of libraries, about each other: users cannot act on them
    from mta_framework.distributed import run_on_main, shutdown
    from mta_framework.runs import pipeline
    from mta_framework.runs.folder import RunFolder
    from mta_framework.runs.upload import open_repository

    if dry_run:
        from mta_framework.cli.plan import plan_lines

        say(*plan_lines(pipeline.plan(bound)))
    else:
        if repository is not None:
            wanted = repository
            repository = run_on_main(lambda: open_repository(wanted, "--push-to-hub"))
        report = pipeline.run(bound, resume, typed())
        say(*score_lines(report), f"Report: {bound.spec.folder / 'report.html'}")
    shutdown()
    if repository is not None and is_main_process():
        _push(RunFolder.of(bound.spec), repository)


def _push(folder: RunFolder, repository: str) -> None:
    from mta_framework.runs.upload import upload

    try:
        say(f"Pushed: {upload(folder, repository)}")
    except RunError as error:  # the run itself did not fail
        say_error(str(error))
        click.get_current_context().exit(1)
