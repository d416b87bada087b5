"""The data as they are, or student responses at a fixed share of the steps."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from mta_framework.interfaces import BatchPolicy, PluginParams, Rollouts
from mta_framework.types import Example, Progress


class OnPolicyBatches(PluginParams):
    """At a share of the steps, train on responses that the student writes at that step."""

    policy: Literal["on_policy"] = Field("on_policy", description="Student responses at a share of the steps.")
    fraction: float = Field(0.5, gt=0, le=1, description="Share of the steps that train on student responses.")
    temperature: float = Field(1.0, gt=0, description="Of the student's sampling.")

    def create(self) -> BatchPolicy:
        """A new policy for one run."""
        return OnPolicy(self)


class OnPolicy(BatchPolicy):
    """With probability ``fraction`` a step trains on student responses to its prompts, else on the data.

    Source: GKD, arXiv 2306.13649, algorithm 1, whose lambda is ``fraction``.
    """

    def __init__(self, options: OnPolicyBatches):
        self._options = options

    def draw(self, batch: Sequence[Example], rollouts: Rollouts, progress: Progress) -> Sequence[Example]:
        """All of the batch's prompts get a new response, or none does."""
        if step_rng("on policy", rollouts, progress).random() < self._options.fraction:
            return rollouts.respond(batch, "student", self._options.temperature)
        return batch


def step_rng(purpose: str, rollouts: Rollouts, progress: Progress) -> random.Random:
    """A generator for one purpose at one step: the same in every process, and after a resume."""
    return random.Random(f"{rollouts.seed} {purpose} {progress.step}")


class FixedBatches(PluginParams):
    """Train on the responses of the data set."""

    policy: Literal["fixed"] = Field("fixed", description="The responses of the data set.")

    def create(self) -> BatchPolicy | None:
        """None: there is nothing to decide."""
        return None
