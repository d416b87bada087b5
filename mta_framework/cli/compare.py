"""``mta compare``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mta_framework.cli.group import on_terminal, say
from mta_framework.cli.options import plugin_option

if TYPE_CHECKING:
    from mta_framework.comparison.results import Comparison


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@plugin_option
@click.option("--metric", "metrics", multiple=True, metavar="LABEL", help="Compare only by this metric; repeatable.")
@click.option("--baseline", metavar="LABEL", help="Label of the row that all others are compared with.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write tables and a web page to this folder.",
)
@click.option(
    "--despite-differences", is_flag=True, help="Compare runs that were evaluated differently, as far as possible."
)
@click.option(
    "--judge",
    type=click.Path(path_type=Path),
    help='JSON file {"name": ..., "params": {...}} of a metric that compares the responses of two rows.',
)
@click.pass_obj
def compare(
    plugin_files: tuple[Path, ...],
    runs: tuple[Path, ...],
    metrics: tuple[str, ...],
    baseline: str | None,
    output: Path | None,
    despite_differences: bool,
    judge: Path | None,
) -> None:
    """Compare finished runs that were evaluated alike.

    RUN is the folder of a run or an evaluation, or a folder that contains such folders. Runs that differ only in their
    seed form one row.
    """
    from mta_framework.comparison import compare as comparing
    from mta_framework.comparison.finished_runs import find_runs, left_out
    from mta_framework.comparison.win_rates import read_judge
    from mta_framework.registry import discover

    chosen = None if judge is None else read_judge(judge, discover(plugin_files))
    folders = find_runs(runs)
    compared = comparing.compare(folders, baseline, metrics, despite_differences, chosen)
    comparison = compared.noted([*left_out(runs, folders)])
    written: list[Path] = []
    if output is not None:
        from mta_framework.reporting.report_files import write_comparison

        written = write_comparison(output, comparison)
    show_comparison(comparison, written)


def show_comparison(comparison: Comparison, written: Sequence[Path]) -> None:
    """Print a comparison, on a terminal with the best scores in bold, and the files that it was written to."""
    from mta_framework.comparison.renderings import terminal_lines

    say(*terminal_lines(comparison, styled=on_terminal()), styled=True)
    if written:
        say("", *(f"Written: {path}" for path in written))
