"""The report of a run, as data: scores, curves, versions and the resolved spec. No torch."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mta_framework.errors import Fault, InputError, counted, error_message, error_summary
from mta_framework.storage import MANIFEST, damaged_files, is_listed
from mta_framework.types import LayerPair, MeanKind, Span
from mta_framework.types.log_entries import BestCheckpoint

_MOST_KEYS = 10
"""Most keys that are not used which are listed, so that a file of many columns does not fill the screen."""

REPORT_FILE = "report.json"
FORMAT = 1
"""Format of ``report.json``; raised whenever older versions could no longer read it."""


@dataclass(frozen=True)
class Score:
    """One cell of the scores table.

    Args:
        model: Name of the model.
        set: Name of the set; None for the unweighted average over the sets.
        metric: Label of the metric.
        per_seed: Mean over the prompts (then over the sets) under each seed.
        mean: Mean over the seeds.
        deviation: Sample standard deviation over the seeds; None with a single seed.
        interval: 95 % bootstrap interval over prompts, of scores averaged over the seeds; None where not computed.
        unscored: Number of prompts that have no weight in the mean, e.g. since their references have no words.
    """

    model: str
    set: str | None
    metric: str
    per_seed: tuple[float, ...]
    mean: float
    deviation: float | None
    interval: tuple[float, float] | None = None
    unscored: int = 0


@dataclass(frozen=True)
class ReportedMetric:
    """A metric as tables present it.

    Args:
        label: Name of the metric, with options where two metrics share the name.
        higher_is_better: Whether higher scores are better.
        mean: Kind of mean over prompts.
        usage: Costs of the metric in this command, by name, e.g. API tokens; empty where it is free.
        score_config: Options that the scores depend on.
        hub_name: Id of the metric on the Hugging Face hub; empty where it is the metric's name.
    """

    label: str
    higher_is_better: bool = True
    mean: MeanKind = "arithmetic"
    usage: Mapping[str, float] = field(default_factory=dict)
    score_config: Mapping[str, Any] = field(default_factory=dict)
    hub_name: str = ""


@dataclass(frozen=True)
class ReportedSet:
    """A set that a model was evaluated on.

    Args:
        model: Name of the model.
        set: Name of the set.
        prompts: Number of prompts.
        cut: Number of prompts that were shortened.
        finished: Share of the responses that ended before the token limit.
        digest: Digest of questions and references, equal where two evaluations used the same rows.
        prompts_digest: Digest of the prompts as they were rendered, equal where two models were asked alike.
    """

    model: str
    set: str
    prompts: int
    cut: int
    finished: float
    digest: str = ""
    prompts_digest: str = ""


@dataclass(frozen=True)
class SampleResponses:
    """A prompt with its first reference and the response of every model under the first seed."""

    set: str
    prompt: str
    reference: str
    responses: Mapping[str, str]


@dataclass(frozen=True)
class ReportedEvaluation:
    """An evaluation, summed up by ``aggregation.aggregate``."""

    seeds: tuple[int, ...]
    scores: tuple[Score, ...]
    sets: tuple[ReportedSet, ...]
    samples: tuple[SampleResponses, ...]
    metrics: tuple[ReportedMetric, ...] = ()


@dataclass(frozen=True)
class ReportedModel:
    """Size of a model: all parameters, trained parameters and decoder blocks (0 where they were not counted)."""

    parameters: int
    trainable: int
    layers: int = 0


@dataclass(frozen=True)
class ReportedData:
    """Rows of a data set.

    Args:
        used: Number of rows used.
        left_out: Number of rows left out for a long prompt.
        cut: Number of rows used with a truncated response.
        unused: Keys of rows that are not used -> number of rows in which they hold something.
        cut_prompts: Number of rows used with the first tokens of a longer prompt.
    """

    used: int
    left_out: int
    cut: int
    unused: Mapping[str, int] = field(default_factory=dict)
    cut_prompts: int = 0


def listed_keys(unused: Mapping[str, int]) -> str:
    """List keys with the number of rows that have them, the most frequent first."""
    counts = sorted(unused.items(), key=lambda entry: (-entry[1], entry[0]))
    more = [f"{len(counts) - _MOST_KEYS:,} more"] if len(counts) > _MOST_KEYS else []
    listed = [f"{key} in {counted(count, 'row')}" for key, count in counts[:_MOST_KEYS]]
    return ", ".join([*listed, *more])


@dataclass(frozen=True)
class ReportedSpans:
    """Spans of one granularity in the training set: spans, texts, and texts without a span."""

    spans: int
    texts: int
    texts_without: int


@dataclass(frozen=True)
class ReportedTeacher:
    """What one of several teachers teaches.

    Args:
        texts: Number of its texts in the training set.
        tokens: Number of supervised tokens of these, in the student's tokens.
        validation_texts: Number of its texts in the validation set.
        layer_pairs: Key layers of the alignment with this teacher.
        loss_layers: Pairs of student layer and layer of this teacher that the base loss reads.
    """

    texts: int
    tokens: int
    validation_texts: int
    layer_pairs: tuple[LayerPair, ...] = ()
    loss_layers: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Geometry:
    """Cosine similarities of spans at one key layer: teacher, student before and student after training.

    Args:
        pair: Key layer.
        labels: Text of each span of one training text.
        teacher: Cosine similarities of these spans in the teacher, a square matrix.
        before: The same matrix of the student before training.
        after: The same matrix of the trained student.
        texts: Number of texts that the agreements are computed on.
        agreement_before: Pearson correlation between the similarities of teacher and untrained student, over all pairs
            of spans of those texts; None where there are too few.
        agreement_after: The same correlation of the trained student.
    """

    pair: LayerPair
    labels: tuple[str, ...]
    teacher: tuple[tuple[float, ...], ...]
    before: tuple[tuple[float, ...], ...]
    after: tuple[tuple[float, ...], ...]
    texts: int
    agreement_before: float | None
    agreement_after: float | None

    @property
    def similarities(self) -> list[float]:
        """All similarities that are finite, of the three models."""
        rows = (*self.teacher, *self.before, *self.after)
        return [value for row in rows for value in row if math.isfinite(value)]


@dataclass(frozen=True)
class SpanSample:
    """A training text with its spans by granularity."""

    text: str
    spans: Mapping[str, tuple[Span, ...]]


@dataclass(frozen=True)
class Report:
    """Everything that is reported of a run; fields of stages that did not happen are empty.

    Args:
        name: Name of the run.
        spec: Resolved spec.
        evaluation: Scores; None where nothing was evaluated.
        layer_pairs: Key layers of the alignment; empty with several teachers, each of which has its own.
        models: Sizes of ``student`` and, if there is one, ``teacher``, or of each of several as ``teachers.NAME``.
        data: Rows of ``train`` and, if there is one, ``validation``.
        spans: Spans of the training set by granularity.
        unparsed: Number of text segments that the span extractor could not parse.
        log: Entries of the training log, as ``transformers.Trainer`` keeps them: ``loss``, each term of the loss, and
            their values on the validation set with the prefix ``eval_``.
        steps: Optimiser steps.
        seconds_per_step: Mean duration of a training step.
        timings: Stage -> seconds.
        versions: Software and hardware, see ``environment.environment``.
        student_folder: Directory of the exported student, relative to the report.
        step_time: Part of a training step (teacher, student, loss, ...) -> mean seconds.
        geometry: Similarities of spans at each key layer.
        span_samples: A few training texts with their spans.
        command: Command line.
        response_ends: Tokens that end a response: that of training responses first, then the others that generation
            stops at.
        best: Checkpoint whose student was exported; None: the student of the last step was.
        inputs: Content of the data sets and models, as digests by dotted field, e.g. ``data.train.path``.
        warnings: Sentences on what the log of training shows: responses of the student that collapsed, and alignment
            terms that added nothing.
        base_loss_title: Name of the base loss in tables, as papers print it; empty: that in the spec.
        term_titles: Name of an alignment term -> its name in tables, where that is another.
        teachers: What each of several teachers teaches, by its name; empty where there is one, or none.
        format: Format of the file, see ``FORMAT``.
    """

    name: str
    spec: Mapping[str, Any]
    evaluation: ReportedEvaluation | None = None
    layer_pairs: tuple[LayerPair, ...] = ()
    models: Mapping[str, ReportedModel] = field(default_factory=dict)
    data: Mapping[str, ReportedData] = field(default_factory=dict)
    spans: Mapping[str, ReportedSpans] = field(default_factory=dict)
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
    response_ends: tuple[str, ...] = ()
    best: BestCheckpoint | None = None
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    base_loss_title: str = ""
    term_titles: Mapping[str, str] = field(default_factory=dict)
    teachers: Mapping[str, ReportedTeacher] = field(default_factory=dict)
    format: int = FORMAT


def report_json(report: Report) -> bytes:
    """Serialise a report as standard JSON: NaN and infinity (e.g. a gradient norm under fp16) become null."""
    return _adapter().dump_json(report, indent=2) + b"\n"


def read_report(folder: Path) -> Report:
    """Read the report of a run.

    Raises:
        InputError: The file is missing, holds no report, was changed or was written by a newer version.
    """
    path, hint = folder / REPORT_FILE, "Write it again: mta run SPEC --resume."
    if newer := newer_fault(folder):
        raise InputError([newer])
    if (folder / MANIFEST).is_file() and path.is_file():
        for name, problem in damaged_files(folder, (REPORT_FILE,)):
            raise InputError([Fault(str(folder / name), problem, "the file as the run wrote it", hint)])
    try:
        return _adapter().validate_json(path.read_bytes())
    except FileNotFoundError:
        problem, hint = "does not exist", "Finish the run first: it writes its report at the end."
    except ValidationError as error:
        problem = f"is not a report (got {error_message(error)})"
    except OSError as error:
        problem = f"is not a report (got {error_summary(error)})"
    raise InputError([Fault(str(path), problem, "the report of a finished run", hint)])


def require_listed(folder: Path) -> None:
    """Refuse a report whose content cannot be checked.

    Args:
        folder: Folder of a finished run or evaluation, whose manifest the report is the last to enter.

    Raises:
        InputError: The manifest is missing, or does not list the report.
    """
    if is_listed(folder, REPORT_FILE):
        return
    problem = f"does not list {REPORT_FILE}" if (folder / MANIFEST).is_file() else "is missing"
    expected = f"the file as the run wrote it, with the digest of {REPORT_FILE}"
    hint = "Put it back; or evaluate again, or resume the run, which says what to delete."
    raise InputError([Fault(str(folder / MANIFEST), problem, expected, hint)])


def newer_fault(folder: Path) -> Fault | None:
    """The fault of a report that a newer version wrote; None for any other file, or none."""
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
