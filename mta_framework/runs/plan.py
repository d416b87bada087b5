"""What a run would do, without doing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mta_framework.evaluation.report import DataFacts, ModelFacts, SpanFacts
from mta_framework.models.model_summary import ModelSummary
from mta_framework.spec.run import RunSpec
from mta_framework.types import LayerPair

_VOCABULARY_CHUNKS = 512 * 2**20
"""At the most: logits of student and teacher, their gradient and temporaries of one chunk."""
_COPIES = 8
"""How many float32 values that is per token and entry of the vocabulary."""

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_ACTIVATIONS_PER_WIDTH = 17
"""Values that a decoder block keeps per token and unit of width; fused attention keeps no matrices of its own.

After Korthikanti et al., Reducing Activation Recomputation in Large Transformer Models, 2022: 34 bytes in 16 bits.
"""


@dataclass(frozen=True)
class Plan:
    """What ``mta run --dry-run`` says.

    Args:
        models: ``teacher`` and ``student``: parameters in all and trained.
        data: ``train`` and ``validation``: rows used, left out, cut.
        spans: Granularity -> spans of the training set.
        layer_pairs: Key layers.
        unparsed: How many stretches of the texts the span extractor could not parse.
        loss_layers: Pairs of layers, the student's and the teacher's, that the base loss reads.
        trained_on: What the batch policy of the base loss does; None: every step is trained on the data.
        measured: Whether they only stand for those that will be measured before the first step.
        steps: Optimiser steps.
        memory: Part -> bytes per process, estimated.
    """

    models: Mapping[str, ModelFacts]
    data: Mapping[str, DataFacts]
    spans: Mapping[str, SpanFacts]
    layer_pairs: tuple[LayerPair, ...]
    steps: int
    memory: Mapping[str, int]
    unparsed: int = 0
    loss_layers: tuple[tuple[int, int], ...] = ()
    trained_on: str | None = None
    measured: bool = False


def estimate_memory(
    spec: RunSpec, student: ModelSummary, teacher: ModelSummary | None, pairs: int, micro_batch_size: int
) -> dict[str, int]:
    """Bytes per process by part; activations are a rule of thumb, the rest is counted."""
    projections = _projections(spec, student, teacher, pairs)
    trained = student.trainable + projections
    value = 2 if spec.training.precision != "fp32" else 4
    tokens = micro_batch_size * spec.data.max_length
    blocks = 2 if spec.training.gradient_checkpointing else student.shape.num_layers * _ACTIVATIONS_PER_WIDTH
    states = 1 + pairs
    logits = 4 * _COPIES * tokens * student.config.get_text_config(decoder=True).vocab_size
    return {
        "student weights": 4 * (student.parameters + projections),
        "gradients": 4 * trained,
        "optimiser": 8 * trained,
        "teacher weights": teacher.parameters * _BYTES[teacher.dtype] if teacher else 0,
        "activations": tokens * (student.shape.hidden_size * blocks + student.shape.hidden_size * states) * value,
        "teacher states": tokens * teacher.shape.hidden_size * (states + 4) * value if teacher else 0,
        "vocabulary chunks": min(logits, _VOCABULARY_CHUNKS),
    }


def _projections(spec: RunSpec, student: ModelSummary, teacher: ModelSummary | None, pairs: int) -> int:
    if spec.alignment is None or spec.alignment.lambda_hid == 0 or teacher is None:
        return 0
    return pairs * (student.shape.hidden_size + 1) * teacher.shape.hidden_size
