"""The plan of a run: what ``mta run --dry-run`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mta_framework.evaluation.report import ReportedData, ReportedModel, ReportedSpans, ReportedTeacher
from mta_framework.memory_estimate.estimate import MemoryEstimate
from mta_framework.spec.training import TrainingSection
from mta_framework.teacher_cache.cache_plan import CachePlan
from mta_framework.types import LayerPair


@dataclass(frozen=True)
class Plan:
    """What a run would do, and what it would need.

    Args:
        models: Sizes of ``student`` and ``teacher``, or of each of several as ``teachers.NAME``.
        data: Rows of ``train`` and ``validation``.
        spans: Spans of the training set by granularity.
        layer_pairs: Key layers of the alignment; empty with several teachers, each of which has its own.
        steps: Number of optimiser steps.
        memory: The estimated peak memory of a process in training; None for a cell of a sweep.
        unparsed: Number of text segments that the span extractor could not parse.
        loss_layers: Pairs of student layer and teacher layer that the base loss reads.
        trained_on: Description of the batch policy of the base loss; None where every step trains on the data.
        supervised_tokens: Number of supervised tokens of the training set, where all assistant turns are supervised.
        measured: Whether ``layer_pairs`` only stand for those that will be measured before the first step.
        selection: How the exported student is chosen, in sentences; empty: it is that of the last step.
        response_ends: Tokens that end a response: that of training responses first, then the others that generation
            stops at.
        teacher_caches: What the cache of a teacher holds and lacks, by the teacher's dotted name; without teachers of
            which nothing is kept.
        teachers: What each of several teachers teaches, by its name; empty where there is one, or none.
        too_large: Which weights do not fit into the memory of this machine, in sentences; empty where all do.
        device: Name of the device that a process trains on here; empty for a cell of a sweep.
        memory_here: Bytes of memory that a process has on this machine; None where that is not known.
    """

    models: Mapping[str, ReportedModel]
    data: Mapping[str, ReportedData]
    spans: Mapping[str, ReportedSpans]
    layer_pairs: tuple[LayerPair, ...]
    steps: int
    memory: MemoryEstimate | None
    unparsed: int = 0
    loss_layers: tuple[tuple[int, int], ...] = ()
    trained_on: str | None = None
    supervised_tokens: int | None = None
    measured: bool = False
    selection: str = ""
    response_ends: tuple[str, ...] = ()
    teacher_caches: Mapping[str, CachePlan] = field(default_factory=dict)
    teachers: Mapping[str, ReportedTeacher] = field(default_factory=dict)
    too_large: tuple[str, ...] = ()
    device: str = ""
    memory_here: int | None = None


def selection_text(section: TrainingSection, higher_is_better: bool, prompts: int) -> str:
    """How the exported student is chosen, in sentences; empty where it is that of the last step.

    Args:
        section: Training section of the spec.
        higher_is_better: Whether a higher value of ``metric_for_best_model`` is better.
        prompts: Number of validation prompts that are answered, if any are.
    """
    if not section.load_best_model_at_end:
        return ""
    often = "epoch" if section.eval_steps is None else f"{section.eval_steps:,} steps"
    better = "highest" if higher_is_better else "lowest"
    answers = f" of answers to {prompts:,} prompts" if section.answer_metric else ""
    stops = ""
    if (patience := section.early_stopping_patience) is not None:
        stops = f" Training stops after {patience} validation{'s' * (patience > 1)} without a better one."
    return (
        f"Validation every {often}; the student with the {better} {section.metric_for_best_model}{answers} is "
        f"exported.{stops}"
    )
