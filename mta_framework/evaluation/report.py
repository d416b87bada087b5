"""What is left of a run to read and to compare: numbers, curves, versions, the resolved spec. No torch."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mta_framework.errors import Fault, InputError
from mta_framework.files import replace
from mta_framework.types import LayerPair

REPORT_FILE = "report.json"


@dataclass(frozen=True)
class Score:
    """One cell of the scores table.

    Args:
        model: Name of the model.
        set: Name of the set; None for the unweighted average over the sets.
        metric: Label of the metric.
        per_seed: Mean over the prompts (then over the sets), for each seed.
        mean: Mean over the seeds.
        deviation: Sample standard deviation over the seeds; None with a single seed.
    """

    model: str
    set: str | None
    metric: str
    per_seed: tuple[float, ...]
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class SetFacts:
    """How many prompts a model saw of a set, how many were cut, and the share of responses that came to an end."""

    model: str
    set: str
    prompts: int
    cut: int
    finished: float


@dataclass(frozen=True)
class SampleResponses:
    """A prompt with its first reference and every model's response (first seed)."""

    set: str
    prompt: str
    reference: str
    responses: Mapping[str, str]


@dataclass(frozen=True)
class EvaluationFacts:
    """The evaluation, summarised; ``summary.summarise`` makes it."""

    seeds: tuple[int, ...]
    scores: tuple[Score, ...]
    sets: tuple[SetFacts, ...]
    samples: tuple[SampleResponses, ...]


@dataclass(frozen=True)
class ModelFacts:
    """Size of a model: all parameters, and those that were trained."""

    parameters: int
    trainable: int


@dataclass(frozen=True)
class DataFacts:
    """Rows of a data set that were used, left out for their long prompt, and used with a cut response."""

    used: int
    left_out: int
    cut: int


@dataclass(frozen=True)
class SpanFacts:
    """Spans of one granularity in the training set: how many, in how many texts, and texts without any."""

    spans: int
    texts: int
    texts_without: int


@dataclass(frozen=True)
class Report:
    """Everything that a run tells; what a run did not do is left empty.

    Args:
        name: Of the run.
        spec: Resolved spec.
        evaluation: Scores, or None where nothing was evaluated.
        layer_pairs: The key layers of the alignment.
        models: ``student`` and, if there was one, ``teacher``.
        data: ``train`` and, if there was one, ``validation``.
        spans: Granularity -> spans of the training set.
        unparsed: Stretches of the texts that the span extractor could not parse.
        log: The entries of the training log, as ``transformers.Trainer`` keeps them; every term of the loss beside
            ``loss``, of the validation as ``eval_loss`` and so on.
        steps: Optimiser steps.
        seconds_per_step: Of training alone.
        timings: Stage -> seconds.
        versions: What it ran on, see ``environment.environment``.
        student_folder: Where the exported student lies, relative to the report.
    """

    name: str
    spec: Mapping[str, Any]
    evaluation: EvaluationFacts | None = None
    layer_pairs: tuple[LayerPair, ...] = ()
    models: Mapping[str, ModelFacts] = field(default_factory=dict)
    data: Mapping[str, DataFacts] = field(default_factory=dict)
    spans: Mapping[str, SpanFacts] = field(default_factory=dict)
    unparsed: int = 0
    log: tuple[Mapping[str, Any], ...] = ()
    steps: int = 0
    seconds_per_step: float | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    student_folder: str = "student"


def write_report(folder: Path, report: Report) -> None:
    """Write ``report.json``, ``report.md`` and, if anything was logged, ``loss.png``; each appears whole or not at all.

    ``report.json`` is standard JSON: NaN and infinity (a gradient norm under fp16) become null.
    """
    from mta_framework.evaluation.curves import loss_curves  # matplotlib is slow to import, and reading needs none
    from mta_framework.evaluation.markdown import markdown

    image = loss_curves(report.log)
    if image is None:
        (folder / "loss.png").unlink(missing_ok=True)
    else:
        replace(folder / "loss.png", image)
    replace(folder / "report.md", markdown(report, curves="loss.png" if image else None))
    replace(folder / REPORT_FILE, _adapter().dump_json(report, indent=2) + b"\n")


def read_report(folder: Path) -> Report:
    """Read the report of a run.

    Raises:
        InputError: There is none, or it is not one.
    """
    path = folder / REPORT_FILE
    try:
        return _adapter().validate_json(path.read_bytes())
    except FileNotFoundError:
        wrong, todo = "does not exist", "Finish the run first: it writes its report at the end."
    except (OSError, ValidationError) as error:
        wrong, todo = f"is not a report ({error})", "Let the run write it anew."
    raise InputError([Fault(str(path), wrong, "the report of a finished run is needed", todo)])


@functools.cache
def _adapter() -> TypeAdapter[Report]:
    return TypeAdapter(Report)
