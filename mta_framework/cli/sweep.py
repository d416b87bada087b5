"""``mta sweep``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mta_framework.cli.compare import show_comparison
from mta_framework.cli.group import say, say_error, typed
from mta_framework.cli.options import plugin_option
from mta_framework.errors import Fault, InputError, counted
from mta_framework.tables.table import Table
from mta_framework.tables.terminal import terminal_table

if TYPE_CHECKING:
    from mta_framework.spec.sweep import Choice
    from mta_framework.sweeps.bound_sweep import BoundSweep


@click.command()
@click.argument("sweep", type=click.Path(path_type=Path))
@plugin_option
@click.option("--resume", is_flag=True, help="Continue an interrupted sweep; finished runs are kept.")
@click.option("--dry-run", is_flag=True, help="List the cells and their differences; run nothing.")
@click.option("--compare", "only_compare", is_flag=True, help="Compare the cells that are finished; run nothing.")
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Number of runs at a time.  [default: 1]")
@click.option("--ray", metavar="ADDRESS", help="Run the cells on the Ray cluster at HOST:PORT, or auto.")
@click.pass_context
def sweep(
    context: click.Context,
    sweep: Path,
    resume: bool,
    dry_run: bool,
    only_compare: bool,
    jobs: int | None,
    ray: str | None,
) -> None:
    """Run every cell of a sweep, and compare the runs.

    Shared work is done once: teachers are trained and spans are parsed before the cells start. Concurrent runs get one
    GPU each, in turn, or an equal share of the cores.
    """
    from mta_framework.registry import discover
    from mta_framework.sweeps.bound_sweep import bind_sweep

    if dry_run and only_compare:
        raise click.UsageError("--dry-run and --compare exclude each other.")
    if (dry_run or only_compare) and (resume or jobs or ray):
        chosen = "--dry-run" if dry_run else "--compare"
        raise click.UsageError(f"--resume, --jobs and --ray have no effect with {chosen}.")
    plugin_files: tuple[Path, ...] = context.obj or ()
    bound = bind_sweep(sweep, discover(plugin_files))
    if dry_run:
        say(*_plan(bound))
        return
    warnings.simplefilter("ignore", FutureWarning)  # as `mta run`
    from mta_framework.sweeps.run import compare_cells, run_sweep, runner

    if only_compare:
        if (compared := compare_cells(bound)) is None:
            problem = f"has no finished cell that was evaluated or validated (got {bound.sweep.folder})"
            raise InputError([Fault(str(sweep), problem, "at least one", "Run it without --compare.")])
        show_comparison(*compared)
        return
    again = typed() if resume else f"{typed()} --resume"
    try:
        failed = run_sweep(bound, runner(jobs, ray), resume, say, plugin_files)
    except KeyboardInterrupt:
        say_error(f"Interrupted. To continue: {again}")
        context.exit(130)
    if compared := compare_cells(bound):
        say("")
        show_comparison(*compared)
    if failed:
        failure = f"The sweep failed in {len(failed)} of its runs: {', '.join(failed)}"
        say_error(failure, f"When the cause is fixed: {again}")
        context.exit(1)


def _plan(bound: BoundSweep) -> Iterator[str]:
    from mta_framework.runs.folder import RunFolder
    from mta_framework.spec.document import shown

    axes = bound.sweep.axes
    yield f"{counted(len(bound.cells), 'cell')} in {bound.sweep.folder}"
    yield ""
    head = ["cell", *(axis.name for axis in axes), "state"]
    cells = [[cell.cell.name, *cell.cell.labels, cell.state] for cell in bound.cells]
    yield from terminal_table(Table(head, cells, alignment="l" * len(head)))
    yield ""
    rows = [row for axis in axes for choice in axis.choices for row in _choice_rows(choice)]
    common = [("every cell", name, shown(value)) for name, value in bound.sweep.set.items()]
    yield from terminal_table(Table(("label", "field", "value"), [*common, *rows], alignment="lll"))
    if bound.teachers:
        yield ""
        states = ["finished" if RunFolder.of(run.spec).is_finished else "not trained yet" for run in bound.teachers]
        yield from (f"teacher {run.path}: {state}" for run, state in zip(bound.teachers, states, strict=True))


def _choice_rows(choice: Choice) -> Iterator[tuple[str, str, str]]:
    from mta_framework.spec.document import shown

    if choice.spec is not None:
        yield choice.label, "all", choice.spec
    elif not choice.settings:
        yield choice.label, "none", "as in the spec"
    for name, value in choice.settings.items():
        yield choice.label, name, shown(value)
