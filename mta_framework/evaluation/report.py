"""What is left of a run to read and to compare: numbers, curves, versions, the resolved spec. No torch."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mta_framework.errors import Fault, InputError
from mta_framework.types import LayerPair, MeanKind, Span

REPORT_FILE = "report.json"
FORMAT = 1
"""Of ``report.json``: raised whenever an older version could not read it any more."""


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
        interval: 95 % bootstrap interval of the mean over prompts, scores averaged over the seeds; None where it was
            not computed.
    """

    model: str
    set: str | None
    metric: str
    per_seed: tuple[float, ...]
    mean: float
    deviation: float | None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class MetricFacts:
    """A metric as tables need it.

    Args:
        label: Its name, with the options that tell it from others.
        higher_is_better: Which direction is better.
        mean: How scores are averaged over prompts.
        usage: What it cost in this command, by name; empty where it cost nothing.
        score_config: The options that scores depend on.
        hub_name: Id of the metric on the Hugging Face hub; empty: the same as its name.
    """

    label: str
    higher_is_better: bool = True
    mean: MeanKind = "arithmetic"
    usage: Mapping[str, float] = field(default_factory=dict)
    score_config: Mapping[str, Any] = field(default_factory=dict)
    hub_name: str = ""


@dataclass(frozen=True)
class SetFacts:
    """What a model was evaluated on.

    Args:
        model: Name of the model.
        set: Name of the set.
        prompts: How many there are.
        cut: How many of them were cut on the left.
        finished: Share of the responses that came to an end.
        digest: Of questions and references: the same where two evaluations are of the same rows.
    """

    model: str
    set: str
    prompts: int
    cut: int
    finished: float
    digest: str = ""


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
    metrics: tuple[MetricFacts, ...] = ()


@dataclass(frozen=True)
class ModelFacts:
    """Size of a model: all parameters, those that were trained, and decoder blocks (0 where nobody counted)."""

    parameters: int
    trainable: int
    layers: int = 0


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
class Geometry:
    """How spans lie to each other at one key layer, in the teacher and in the student before and after training.

    Args:
        pair: The key layer.
        labels: The spans of one text, as text.
        teacher: Their cosine similarities, a square matrix.
        before: The same in the student before training.
        after: The same in the trained student.
        texts: How many texts were measured.
        agreement_before: Pearson correlation of the student's similarities before training and the teacher's, over all
            pairs of spans of those texts; None where there are too few.
        agreement_after: The same, after training.
    """

    pair: LayerPair
    labels: tuple[str, ...]
    teacher: tuple[tuple[float, ...], ...]
    before: tuple[tuple[float, ...], ...]
    after: tuple[tuple[float, ...], ...]
    texts: int
    agreement_before: float | None
    agreement_after: float | None


@dataclass(frozen=True)
class SpanSample:
    """A text of the training set with its spans, by granularity."""

    text: str
    spans: Mapping[str, tuple[Span, ...]]


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
        step_time: Part of a training step (teacher, student, loss, ...) -> seconds, mean over the steps.
        geometry: One for each key layer.
        span_samples: A few texts.
        command: What was typed.
        format: Of the file.
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
    step_time: Mapping[str, float] = field(default_factory=dict)
    geometry: tuple[Geometry, ...] = ()
    span_samples: tuple[SpanSample, ...] = ()
    command: str = ""
    format: int = FORMAT


def report_json(report: Report) -> bytes:
    """The content of ``report.json``, standard JSON: NaN and infinity (a gradient norm under fp16) become null."""
    return _adapter().dump_json(report, indent=2) + b"\n"


def read_report(folder: Path) -> Report:
    """Read the report of a run.

    Raises:
        InputError: There is none, it is not one, or a newer version wrote it.
    """
    path, hint = folder / REPORT_FILE, "Let the run write it anew: mta run SPEC --resume."
    if newer := newer_fault(folder):
        raise InputError([newer])
    try:
        return _adapter().validate_json(path.read_bytes())
    except FileNotFoundError:
        problem, hint = "does not exist", "Finish the run first: it writes its report at the end."
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        problem = f"is not a report (got {'.'.join(map(str, first['loc'])) or 'its content'}: {first['msg']})"
    except OSError as error:
        problem = f"is not a report (got {type(error).__name__}: {error})"
    raise InputError([Fault(str(path), problem, "the report of a finished run is needed", hint)])


def newer_fault(folder: Path) -> Fault | None:
    """What to say of a report that a newer version wrote; None of any other file, or none."""
    path = folder / REPORT_FILE
    try:
        written = json.loads(path.read_bytes()).get("format", FORMAT)
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    if not isinstance(written, int) or written <= FORMAT:
        return None
    problem = f"was written by a newer version of mta_framework (got format {written})"
    return Fault(str(path), problem, f"format {FORMAT} or older", "Use that version, or delete the file.")


@functools.cache
def _adapter() -> TypeAdapter[Report]:
    return TypeAdapter(Report)
