"""Student responses and their replay, the more the worse the validation loss gets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import BaseModel, Field, JsonValue

from mta_framework.batch_policies.buffer import ReplayBuffer
from mta_framework.batch_policies.on_policy import step_rng
from mta_framework.errors import RunError
from mta_framework.interfaces import BatchPolicy, PluginParams, Rollouts
from mta_framework.types import Example, Progress


class AdaptiveBatches(PluginParams):
    """Train on student responses and their replay, the more often the worse the validation loss gets."""

    policy: Literal["adaptive"] = Field("adaptive", description="Student responses and replay, led by validation.")
    capacity: int = Field(1000, ge=1, description="Responses in the replay buffer; at least training.batch_size.")
    tolerance: float = Field(
        0.1, ge=0, description="The threshold rises when the validation cross-entropy has grown by as many nats."
    )
    increment: float = Field(0.1, gt=0, le=1, description="By how much the threshold rises, to at most 1.")
    initial_threshold: float = Field(
        0.0, ge=0, le=1, description="Share of the steps, before any rise, that train on student responses."
    )
    temperature: float = Field(1.0, gt=0, description="Of the student's sampling.")

    def create(self) -> BatchPolicy:
        """A new policy for one run."""
        return Adaptive(self)


class _State(BaseModel):
    threshold: float
    accepted: float | None
    buffer: JsonValue


class Adaptive(BatchPolicy):
    """DistiLLM's adaptive off-policy scheduler.

    ``r`` is uniform in [0, 1) at each step, ``t`` the threshold. With ``r < t * (1 - step / total_steps)``, or with
    ``r < t`` while the buffer is not full, the student answers the batch's prompts, and its answers go into the buffer
    too; else, with ``r < t``, as many texts are drawn from the buffer, without replacement; else the data are used.

    Source: DistiLLM, arXiv 2402.03898, section 3.2, and the authors' code, which decides for every micro-batch on every
    rank by itself, with a buffer each; here a decision is for the global batch, and there is one buffer.
    """

    NEEDS_VALIDATION: ClassVar[bool] = True

    def __init__(self, options: AdaptiveBatches):
        self._options = options
        self._threshold = options.initial_threshold
        self._accepted: float | None = None
        self._buffer = ReplayBuffer(options.capacity)

    def check(self, batch_size: int) -> None:
        """The buffer must hold a batch, or none could be drawn from it."""
        if self._options.capacity < batch_size:
            problem = f"capacity of the replay buffer is less than training.batch_size (got {self._options.capacity})"
            raise ValueError(f"{problem}; at least {batch_size}. Raise capacity, or lower training.batch_size.")

    def draw(self, batch: Sequence[Example], rollouts: Rollouts, progress: Progress) -> Sequence[Example]:
        """New student responses, replayed ones, or the data."""
        draw = step_rng("adaptive", rollouts, progress).random()
        if draw >= self._threshold:
            return batch
        remaining = 1 - progress.step / progress.total_steps
        if draw < self._threshold * remaining or not self._buffer.full:
            responses = rollouts.respond(batch, "student", self._options.temperature)
            self._buffer.add(responses)
            return responses
        return self._buffer.sample(len(batch), step_rng("replay", rollouts, progress))

    def validated(self, cross_entropy: float) -> None:
        """Accept the first value; raise the threshold where a later one is worse than the accepted one, and accept it.

        Raises:
            RunError: It is NaN or infinite.
        """
        if not math.isfinite(cross_entropy):
            raise RunError(f"validation cross-entropy is {cross_entropy}: nothing can be decided by it.")
        if self._accepted is None:
            self._accepted = cross_entropy
        elif cross_entropy >= self._accepted + self._options.tolerance:
            self._accepted = cross_entropy
            # Rounded, or ten times 0.1 would stop short of 1.
            self._threshold = min(round(self._threshold + self._options.increment, 12), 1.0)

    def state(self) -> JsonValue:
        """Threshold, accepted cross-entropy and buffer."""
        state = _State(threshold=self._threshold, accepted=self._accepted, buffer=self._buffer.state())
        dumped: JsonValue = state.model_dump(mode="json")
        return dumped

    def restore(self, state: JsonValue) -> None:
        """Go on from what ``state`` gave."""
        found = _State.model_validate(state)
        self._threshold, self._accepted = found.threshold, found.accepted
        self._buffer.restore(found.buffer)
