"""Student responses at a fixed share of the steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from mta_framework.batch_policies.chance import at_step
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
        if at_step("on policy", rollouts, progress).random() < self._options.fraction:
            return rollouts.respond(batch, "student", self._options.temperature)
        return batch
