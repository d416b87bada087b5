"""What a training works with, besides the module that it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mta_framework.data.batches import Collator, GroupedSampler
from mta_framework.data.mixed_batches import MixedCollator
from mta_framework.generation.engine import Engine
from mta_framework.interfaces import BatchPolicy
from mta_framework.training.rollouts import TrainingRollouts
from mta_framework.training.selection import AnswerScore
from mta_framework.types import Example


@dataclass(frozen=True)
class TrainingData:
    """The data of a training.

    Args:
        train: Training set.
        validation: Validation set; may be empty.
        sampler: Order of the training set.
        collator: Turns examples into batches.
        policy: Batch policy; None: every step trains on the training set's responses.
        rollouts: Writes responses for the policy; None without one.
        answers: Scores answers to validation prompts at each validation; None: the losses alone are computed.
        engine: Engine of rollouts and answers; None without them.
    """

    train: Sequence[Example]
    validation: Sequence[Example]
    sampler: GroupedSampler
    collator: Collator | MixedCollator
    policy: BatchPolicy | None = None
    rollouts: TrainingRollouts | None = None
    answers: AnswerScore | None = None
    engine: Engine | None = None
