"""Puts together what training works with: a bound spec's plugins, the models and the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from mta_framework.alignment.objective import Alignment
from mta_framework.alignment.similarity import layer_similarity
from mta_framework.binding import BoundRun
from mta_framework.data.batches import GroupedSampler
from mta_framework.data.prepare import PreparedData
from mta_framework.data.responses import ResponseEncoder
from mta_framework.data.spans import SpanCache
from mta_framework.generation.engine import make_engine
from mta_framework.generation.sampling import Sampling
from mta_framework.interfaces import MeasuringLayerMapper
from mta_framework.models.lineup import Lineup
from mta_framework.spec.sections import DTYPE_OF_PRECISION, RunSpec
from mta_framework.training.loader import Collator
from mta_framework.training.rollouts import TrainingRollouts
from mta_framework.training.train import total_steps
from mta_framework.training.trainer import TrainingData
from mta_framework.types import LayerPair, LayerSimilarity

_COMPARED = 8
"""Texts whose states, at all layers of both models, are held together to compare them."""


def alignment(bound: BoundRun, lineup: Lineup, pairs: tuple[LayerPair, ...]) -> Alignment | None:
    """MTA's terms, or None."""
    section, teacher = bound.spec.alignment, lineup.teacher_outline
    if section is None or bound.importance is None or teacher is None:
        return None
    return Alignment(
        pairs,
        bound.importance,
        student_width=lineup.student_outline.shape.hidden_size,
        teacher_width=teacher.shape.hidden_size,
        lambda_dsa=section.lambda_dsa,
        lambda_hid=section.lambda_hid,
        dsa_reduction=section.dsa_reduction,
        max_spans=section.max_spans,
        hid_reduction=section.hid_reduction,
    )


def similarity(
    mapper: MeasuringLayerMapper, data: TrainingData, seed: int, student: nn.Module, teacher: nn.Module
) -> LayerSimilarity:
    """How alike the layers are on as many training texts as a mapper asks for, chosen by the run's seed."""
    chosen = np.random.default_rng(seed).permutation(len(data.train))[: mapper.texts].tolist()
    groups = [chosen[first : first + _COMPARED] for first in range(0, len(chosen), _COMPARED)]
    batches = (data.collator([data.train[number] for number in group]) for group in groups)
    return layer_similarity(student, teacher, batches, mapper.granularities)


def training_data(
    bound: BoundRun,
    lineup: Lineup,
    data: PreparedData,
    sampler: GroupedSampler,
    student: nn.Module,
    teacher: nn.Module | None,
) -> TrainingData:
    """What is trained on, with the base loss's batch policy where it has one."""
    granularities = bound.spans.granularities if bound.spans else ()
    teacher_padding = (lineup.teacher_tokenizer or lineup.tokenizer).pad_token_id
    policy = bound.base_loss.batch_policy()
    return TrainingData(
        train=data.train.examples,
        validation=data.validation.examples if data.validation else [],
        sampler=sampler,
        collator=Collator(lineup.tokenizer.pad_token_id, granularities, teacher_padding),
        policy=policy,
        rollouts=None if policy is None else _rollouts(bound, lineup, data, sampler, student, teacher),
    )


def _rollouts(
    bound: BoundRun,
    lineup: Lineup,
    data: PreparedData,
    sampler: GroupedSampler,
    student: nn.Module,
    teacher: nn.Module | None,
) -> TrainingRollouts:
    spec, tokenizer = bound.spec, lineup.tokenizer
    section, dtype = spec.training.generation, DTYPE_OF_PRECISION[spec.training.precision]
    assert section is not None
    longest = section.max_new_tokens or spec.data.max_length - spec.data.max_prompt_length
    models: dict[str, nn.Module] = {"student": student, **({} if teacher is None else {"teacher": teacher})}
    return TrainingRollouts(
        make_engine(section.engine, models, tokenizer, spec.folder / "engine"),
        models,
        Sampling(temperature=1.0, top_p=1.0, max_new_tokens=longest, batch_tokens=section.batch_tokens),
        ResponseEncoder(tokenizer, bound.spans, spec.data.max_length),
        data.train.examples,
        sampler,
        seed=spec.seed,
        total_steps=total_steps(spec.training, sampler),
        folder=Path(spec.output_dir) / "response-cache",
        settings={"max_new_tokens": longest, "engine": section.engine, "precision": spec.training.precision},
        span_cache=SpanCache(span_cache_folder(spec), bound.spans, spec.data.processes) if bound.spans else None,
        autocast=None if dtype == "float32" else getattr(torch, dtype),
    )


def span_cache_folder(spec: RunSpec) -> Path:
    """Where spans are kept between runs."""
    return Path(spec.data.cache_dir or Path(spec.output_dir) / "span-cache")
