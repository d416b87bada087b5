"""Validation counts its set once, and holds one batch at a time, with what is kept of the teacher on it."""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mta_framework.data.batches import Collator
from mta_framework.training.distiller import LossMeter
from mta_framework.training.trainer import DistillationTrainer
from mta_framework.types import TEXTS, TOKENS, Example, LossTerm

LENGTHS = (3, 9, 4, 8, 5, 7, 6)


@pytest.fixture
def read():
    """The texts whose records were read, in order."""
    return []


@pytest.fixture
def trainer(read):
    """A trainer with seven texts of one prompt token to validate on, two at a time."""

    def teacher_records(examples):
        read.extend(len(example.input_ids) for example in examples)
        return {}

    class WatchedCollator(Collator):
        most = 0

        def __call__(self, examples):
            batch = super().__call__(examples)
            alive.append(None)
            weakref.finalize(batch, alive.pop)
            WatchedCollator.most = max(WatchedCollator.most, len(alive))
            return batch

        def with_teacher_records(self, records):
            return WatchedCollator(0, (), 0, records)

    alive = []
    trainer = object.__new__(DistillationTrainer)
    trainer.args = SimpleNamespace(
        per_device_train_batch_size=2, process_index=0, world_size=1, device=torch.device("cpu")
    )
    examples = [Example(np.full(length, 1, dtype=np.int32), 1, {}) for length in LENGTHS]
    trainer._data = SimpleNamespace(validation=examples, collator=WatchedCollator(0, (), 0, teacher_records))
    trainer.distiller = SimpleNamespace(
        validate=lambda batch, progress: (LossTerm("kl", batch.target_N.sum().float(), TOKENS, 1.0),)
    )
    trainer.accelerator = SimpleNamespace(autocast=nullcontext)
    trainer.state = SimpleNamespace(global_step=0, max_steps=1, epoch=0.0)
    return trainer


def validate(trainer):
    meter = LossMeter()
    trainer._validate(trainer._validation_parts, trainer._validation_counts, meter)
    meter.reduce("validation", lambda values: values)
    return meter.pop()


def test_counts_are_those_of_the_whole_set(trainer):
    counts = trainer._validation_counts.all_texts
    assert (counts[TEXTS], counts[TOKENS]) == (7, sum(LENGTHS) - 7)
    assert validate(trainer)["kl"] == 1.0  # each supervised token has id 1


def test_few_batches_are_in_memory_at_once(trainer):
    assert len(trainer._validation_parts) == 4
    validate(trainer)
    assert type(trainer._data.collator).most <= 2  # the last one goes when the next is there


def test_records_are_read_once_in_each_validation_and_never_to_count(trainer, read):
    assert trainer._validation_counts.all_texts[TEXTS] == 7
    assert read == []
    for _ in range(2):
        validate(trainer)
        assert read == sorted(LENGTHS, reverse=True)
        read.clear()
