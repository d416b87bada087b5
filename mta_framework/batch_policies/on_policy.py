"""Student responses at a fixed share of the steps, otherwise those of the data set."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from mta_framework.interfaces import BatchPolicy, BatchPolicyOptions, Rollouts
from mta_framework.types import Example, Progress


class OnPolicyBatches(BatchPolicyOptions):
    """Options of GKD's policy: at a share of the steps, train on responses that the student writes at that step."""

    policy: Literal["on_policy"] = Field(
        "on_policy", description="Train on new student responses at a share of the steps."
    )
    fraction: float = Field(0.5, gt=0, le=1, description="Share of the steps that train on student responses.")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature of the student.")

    def create(self) -> BatchPolicy:
        """Create the policy of one run."""
        return OnPolicy(self)


class OnPolicy(BatchPolicy):
    """Trains on student responses to a step's prompts with probability ``fraction``, otherwise on the batch itself.

    Args:
        options: Share of the steps and temperature.

    Source: GKD (arXiv 2306.13649), algorithm 1, whose lambda is ``fraction``.
    """

    def __init__(self, options: OnPolicyBatches):
        self._options = options
        self.temperature = options.temperature
        self.USES_DATA_RESPONSES = options.fraction < 1

    def draw(self, batch: Sequence[Example], rollouts: Rollouts, progress: Progress) -> Sequence[Example]:
        """Choose new student responses to all of the batch's prompts, or the batch itself."""
        if step_rng("on policy", rollouts, progress).random() < self._options.fraction:
            return rollouts.respond(batch, "student", self._options.temperature)
        return batch


def step_rng(purpose: str, rollouts: Rollouts, progress: Progress) -> random.Random:
    """Create the random generator for one purpose at one step, the same in every process and after a resume."""
    return random.Random(f"{rollouts.seed} {purpose} {progress.step}")
