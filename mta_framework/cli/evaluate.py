"""``mta evaluate``."""

from __future__ import annotations

import warnings
from pathlib import Path

import click

from mta_framework.cli.group import say, typed
from mta_framework.cli.options import plugin_option
from mta_framework.cli.scores import score_lines


@click.command()
@click.argument("target")
@click.option("--data", multiple=True, metavar="NAME=FILE", help="Data set to evaluate on, a file of rows; repeatable.")
@click.option(
    "--seeds", metavar="SEED,...", help="Sampling seeds, separated by commas.  [default: the run's, or 10,20,30,40,50]"
)
@click.option(
    "--metric", "metrics", multiple=True, metavar="NAME", help="Metric, with its default options; repeatable."
)
@click.option(
    "--template",
    metavar="alpaca|chat",
    help="Template that turns instruction rows into prompts.  [default: the run's, or alpaca]",
)
@click.option(
    "--dtype", metavar="float32|bfloat16|float16", help="Dtype of the weights.  [default: the run's, or float32]"
)
@click.option(
    "-o",
    "--output",
    metavar="FOLDER",
    help="Folder for the results.  [default: evaluations/NAME, named after the target]",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting, e.g. evaluation.temperature=0.5 or model.revision=main; repeatable. "
    "Paths are relative to the working directory.",
)
@plugin_option
@click.pass_obj
def evaluate(
    plugin_files: tuple[Path, ...],
    target: str,
    data: tuple[str, ...],
    seeds: str | None,
    metrics: tuple[str, ...],
    template: str | None,
    dtype: str | None,
    output: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Sample responses of a model, score them, write a report.

    TARGET is a run folder, a local transformers folder, a .gguf file or a model id on the hub, decoder-only in each
    case. A run folder provides the settings of its evaluation, including data, as defaults. The same command continues
    an interrupted evaluation and reuses existing responses.
    """
    from mta_framework.registry import discover
    from mta_framework.runs.plugin_binding import bind_evaluation
    from mta_framework.spec.evaluate_request import EvaluateRequest, read_request

    request = EvaluateRequest(target, data, seeds, metrics, template, dtype, output, overrides)
    # All faults of the input are known before torch is loaded.
    bound = bind_evaluation(read_request(request), discover(plugin_files))
    warnings.simplefilter("ignore", FutureWarning)  # of libraries, about each other: users cannot act on them
    from mta_framework.distributed import shutdown
    from mta_framework.runs import pipeline

    report = pipeline.evaluate(bound, typed())
    say(*score_lines(report), f"Report: {Path(bound.spec.folder) / 'report.html'}")
    shutdown()
