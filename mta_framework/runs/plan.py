"""The plan of a run: what ``mta run --dry-run`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mta_framework.evaluation.report import ReportedData, ReportedModel, ReportedSpans
from mta_framework.models.model_summary import ModelSummary
from mta_framework.spec.run import RunSpec
from mta_framework.spec.training import TrainingSection
from mta_framework.teacher_cache.cache_plan import CachePlan
from mta_framework.types import LayerPair

_VOCABULARY_CHUNKS = 512 * 2**20
"""Most bytes of one chunk's logits of student and teacher, their gradient and temporaries."""

_COPIES = 8
"""The same as a number of float32 values per token and vocabulary entry."""

_ACTIVATIONS_PER_WIDTH = 17
"""Values that a decoder block keeps per token and unit of width; fused attention keeps no attention matrices.

After Korthikanti et al., Reducing Activation Recomputation in Large Transformer Models, 2022: 34 bytes in 16 bits.
"""


@dataclass(frozen=True)
class Plan:
    """What a run would do, and what it would need.

    Args:
        models: Sizes of ``teacher`` and ``student``.
        data: Rows of ``train`` and ``validation``.
        spans: Spans of the training set by granularity.
        layer_pairs: Key layers of the alignment.
        steps: Number of optimiser steps.
        memory: Part -> estimated bytes per process.
        unparsed: Number of text segments that the span extractor could not parse.
        loss_layers: Pairs of student layer and teacher layer that the base loss reads.
        trained_on: Description of the batch policy of the base loss; None where every step trains on the data.
        supervised_tokens: Number of supervised tokens of the training set, where all assistant turns are supervised.
        measured: Whether ``layer_pairs`` only stand for those that will be measured before the first step.
        selection: How the exported student is chosen, in sentences; empty: it is that of the last step.
        response_ends: Tokens that end a response: that of training responses first, then the others that generation
            stops at.
        teacher_cache: What the teacher cache holds and lacks; None where nothing is kept.
    """

    models: Mapping[str, ReportedModel]
    data: Mapping[str, ReportedData]
    spans: Mapping[str, ReportedSpans]
    layer_pairs: tuple[LayerPair, ...]
    steps: int
    memory: Mapping[str, int]
    unparsed: int = 0
    loss_layers: tuple[tuple[int, int], ...] = ()
    trained_on: str | None = None
    supervised_tokens: int | None = None
    measured: bool = False
    selection: str = ""
    response_ends: tuple[str, ...] = ()
    teacher_cache: CachePlan | None = None


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


def estimate_memory(
    spec: RunSpec,
    student: ModelSummary,
    teacher: ModelSummary | None,
    layers: int,
    projections: int,
    micro_batch_size: int,
) -> dict[str, int]:
    """Estimate the bytes per process by part: activations by a rule of thumb, all other parts by counting.

    Args:
        spec: The spec.
        student: Size and shape of the student.
        teacher: Those of the teacher; None without one.
        layers: Number of pairs of layers whose states are kept besides the final ones.
        projections: Number of parameters of the alignment terms.
        micro_batch_size: Texts per forward pass.
    """
    trained = student.trainable + projections
    value = 2 if spec.training.precision != "fp32" else 4
    tokens = micro_batch_size * spec.data.max_length
    blocks = 2 if spec.training.gradient_checkpointing else student.shape.num_layers * _ACTIVATIONS_PER_WIDTH
    states = 1 + layers
    logits = 4 * _COPIES * tokens * student.config.get_text_config(decoder=True).vocab_size
    return {
        "student weights": student.weight_bytes + 4 * projections,
        "gradients": 4 * trained,
        "optimiser": 8 * trained,
        "teacher weights": teacher.weight_bytes if teacher else 0,
        "activations": tokens * (student.shape.hidden_size * blocks + student.shape.hidden_size * states) * value,
        "teacher states": tokens * teacher.shape.hidden_size * (states + 4) * value if teacher else 0,
        "vocabulary chunks": min(logits, _VOCABULARY_CHUNKS),
    }
