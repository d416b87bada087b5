"""The parts of a run besides its losses, on tiny models: what ``simulated_device.py`` runs once each."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import torch
from device_cases import SHAPE, Case, batch_of, importance_of, model, texts_of
from tokenizers import Tokenizer
from tokenizers import models as tokenizer_models
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast, get_scheduler
from watched_device import NAME, Watch

from mta_framework.batch_policies import AdaptiveBatches, OnPolicyBatches, PairedBatches
from mta_framework.data.batches import GroupedSampler, collate
from mta_framework.data.response_encoding import ResponseEncoder
from mta_framework.generation.continuous_batching import generate_continuous
from mta_framework.generation.request import DecodingConfig, GenerationRequest
from mta_framework.generation.sampling_settings import Sampling
from mta_framework.generation.static_batching import generate_static
from mta_framework.generation.transformers_engine import TransformersEngine
from mta_framework.interfaces import BatchPolicyOptions
from mta_framework.models.teacher_states import Teacher
from mta_framework.teacher_cache.kinds import RecordedRun, TeacherWidths
from mta_framework.teacher_cache.reader import RecordReader
from mta_framework.teacher_cache.recording import Recorder
from mta_framework.testing import random_example
from mta_framework.testing.values import VOCABULARY
from mta_framework.training.distiller import Distiller, contribution
from mta_framework.training.global_counts import GlobalCounts
from mta_framework.training.rollouts import TrainingRollouts
from mta_framework.training.trainer import DistillationTrainer
from mta_framework.training.training_meter import TrainingMeter
from mta_framework.types import Batch, Example, Progress

PROGRESS = Progress(3, 10, 0.3)
POLICIES: dict[str, BatchPolicyOptions] = {
    "adaptive": AdaptiveBatches(initial_threshold=1.0),
    "on_policy": OnPolicyBatches(fraction=1.0),
    "pairs": PairedBatches(every_steps=2),
}
"""Options of the batch policies with which the student writes responses in the first steps."""

Generate = Callable[[PreTrainedModel, list[GenerationRequest], DecodingConfig], Iterator[GenerationRequest]]


def step(distiller: Distiller, batch: Batch, watch: Watch, sixteen_bits: bool = False) -> None:
    """Forward and backward pass of a micro-batch, which a run has moved before."""
    batch = batch.to(NAME)
    watch.events.clear()
    with torch.autocast(NAME, torch.bfloat16, enabled=sixteen_bits):
        loss = contribution(distiller(batch, PROGRESS), dict(batch.counts))
    loss.backward()


def optimiser_step(distiller: Distiller, case: Case, watch: Watch) -> None:
    """A whole step: loss, clipping, what the trainer checks and logs, AdamW and the learning rate."""
    meter = TrainingMeter()
    distiller.health = meter.health
    meter.health.begin_step([random_example(9, 4, by_student=True)], lambda text: True, NAME)
    batch = batch_of(case).to(NAME)
    optimiser = torch.optim.AdamW(distiller.parameters())
    schedule = get_scheduler("cosine", optimiser, num_warmup_steps=1, num_training_steps=9)
    watch.events.clear()
    with torch.autocast(NAME, torch.bfloat16):
        terms = distiller(batch, PROGRESS)
        meter.terms.update(terms, GlobalCounts(batch.counts))
        loss = contribution(terms, dict(batch.counts))
    loss.backward()
    trainer = SimpleNamespace(
        distiller=distiller,
        meter=meter,
        args=SimpleNamespace(fp16=False),
        state=SimpleNamespace(global_step=3),
        _sum_over_processes=lambda values: values,
        _reduce=lambda terms, where: terms.reduce(where, lambda values: values),
        _gradient_norm=nn.utils.clip_grad_norm_(distiller.parameters(), 1.0),
    )
    DistillationTrainer.before_optimizer_step(trainer)  # type: ignore[arg-type]
    optimiser.step()
    schedule.step()
    optimiser.zero_grad()


@torch.no_grad()
def generation(distiller: Distiller, generate: Generate) -> None:
    """Sample three tokens of three responses, one of them after the others."""
    sampling = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=3, batch_tokens=18)
    config = DecodingConfig(sampling, ends=(0,), size=VOCABULARY, padding=0, keep_log_probs=True)
    rows = [GenerationRequest(index, (2,) * (5 - index), random.Random(index)) for index in range(3)]
    list(generate(cast(PreTrainedModel, distiller.student.eval()), rows, config))
    distiller.student.train()


def continuous_batching(distiller: Distiller, _case: Case, _watch: Watch) -> None:
    """Generate as with most models."""
    generation(distiller, generate_continuous)


def static_batching(distiller: Distiller, _case: Case, _watch: Watch) -> None:
    """Generate as with models whose cache cannot give up a row."""
    generation(distiller, generate_static)


def recorded_step(distiller: Distiller, case: Case, watch: Watch) -> None:
    """A step with the records of a live teacher, which was run on the CPU, and its head on the device."""
    alignment, whole = distiller.alignment, Teacher.of(model().eval().requires_grad_(False))
    assert alignment is not None
    run = RecordedRun(
        TeacherWidths(SHAPE.hidden_size, SHAPE.hidden_size, "float32"),
        distiller.base_loss,
        distiller.base_loss.key_layers(SHAPE, SHAPE),
        alignment.pairs,
        alignment.terms,
        importance_of(case),
        has_shared_tokenizer=case.shared_tokenizer,
    )
    texts, recorder, kinds = texts_of(case), Recorder(run), run.kinds()
    batch = batch_of(case)
    records = recorder.records(whole.states(batch, recorder.layers), batch, texts, kinds)
    stores = {
        kind: {kind.key(text): memoryview(of_text[index]) for text, of_text in zip(texts, records, strict=True)}
        for index, kind in enumerate(kinds)
    }
    step(distiller, replace(batch, teacher_records=RecordReader(cast(Any, stores))(texts)), watch)


def policy_steps(name: str) -> Callable[[Distiller, Case, Watch], None]:
    """Three steps of a batch policy: responses are written, replayed and trained on."""

    def steps(distiller: Distiller, _case: Case, watch: Watch) -> None:
        texts = [random_example(12, length, seed=length) for length in (6, 5, 4, 3)]
        sampler, policy = GroupedSampler([12] * 4, 2, 2, 1, 0), POLICIES[name].create()
        assert policy is not None
        with TemporaryDirectory() as folder:
            rollouts = _rollouts(distiller, texts, sampler, Path(folder))
            for index in range(3):
                rollouts.step = index
                drawn = policy.draw(texts[:2], rollouts, Progress(index, 4, index / 2))
                before = list(watch.events)
                step(distiller, collate(drawn, 0, ()), watch)
                watch.events += before

    return steps


def _rollouts(distiller: Distiller, texts: list[Example], sampler: GroupedSampler, folder: Path) -> TrainingRollouts:
    """Rollouts of a run without alignment, whose teacher is the student."""
    words = tokenizer_models.WordLevel({f"w{index}": index for index in range(VOCABULARY)}, unk_token="w0")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), eos_token="w0", pad_token="w0")
    models = dict.fromkeys(("student", "teacher"), distiller.student)
    return TrainingRollouts(
        TransformersEngine(models, tokenizer, (0,), keep_log_probs=True),
        models,
        Sampling(temperature=1.0, top_p=1.0, max_new_tokens=3, batch_tokens=18),
        ResponseEncoder(tokenizer, 0, None, 16),
        texts,
        sampler,
        seed=0,
        total_steps=4,
        folder=folder,
        settings={},
        span_cache=None,
        autocast=None,
    )
