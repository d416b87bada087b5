"""Student responses and their replay, the more of them the worse the validation loss gets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import BaseModel, Field, JsonValue

from mta_framework.batch_policies.buffer import ReplayBuffer
from mta_framework.batch_policies.on_policy import step_rng
from mta_framework.errors import RunError
from mta_framework.interfaces import BatchPolicy, BatchPolicyOptions, Rollouts
from mta_framework.types import Example, Progress


class AdaptiveBatches(BatchPolicyOptions):
    """Options of DistiLLM's policy: train on student responses the more often, the worse the validation loss gets."""

    policy: Literal["adaptive"] = Field(
        "adaptive",
        description="Train on student responses and their replay, the more often the worse the validation loss gets.",
    )
    capacity: int = Field(
        1000, ge=1, description="Size of the replay buffer in responses; at least training.batch_size."
    )
    tolerance: float = Field(
        0.1, ge=0, description="Growth of the validation cross-entropy, in nats, at which the threshold rises."
    )
    increment: float = Field(0.1, gt=0, le=1, description="Amount by which the threshold rises, to at most 1.")
    initial_threshold: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Initial threshold: share of the steps that train on student responses before any rise.",
    )
    temperature: float = Field(1.0, gt=0, description="Sampling temperature of the student.")

    def create(self) -> BatchPolicy:
        """Create the policy of one run."""
        return Adaptive(self)


class _State(BaseModel):
    threshold: float
    accepted: float | None
    buffer: JsonValue


class Adaptive(BatchPolicy):
    """DistiLLM's adaptive off-policy scheduler.

    At each step a number r is drawn uniformly from [0, 1); t is the threshold. If ``r < t * (1 - step / total_steps)``,
    or if ``r < t`` while the buffer is not full, the student responds to the batch's prompts, and its responses are
    added to the buffer. Otherwise, if ``r < t``, as many texts are drawn from the buffer, without replacement.
    Otherwise the step trains on the batch itself.

    Args:
        options: Buffer size, threshold and temperature.

    Source: DistiLLM (arXiv 2402.03898), section 3.2, and its authors' code. That code decides for each micro-batch on
    each rank, with a buffer per rank; here one decision is made per global batch, with one buffer.
    """

    NEEDS_VALIDATION: ClassVar[bool] = True

    def __init__(self, options: AdaptiveBatches):
        self._options = options
        self.temperature = options.temperature
        self._threshold = options.initial_threshold
        self._accepted: float | None = None
        self._buffer = ReplayBuffer(options.capacity)

    def check(self, batch_size: int) -> None:
        """Check that the buffer can hold a batch.

        Raises:
            ValueError: Its capacity is less than ``batch_size``.
        """
        if self._options.capacity < batch_size:
            problem = f"capacity of the replay buffer is less than training.batch_size (got {self._options.capacity})"
            hint = "Raise capacity, or lower training.batch_size."
            raise ValueError(f"{problem}; expected a capacity of at least {batch_size}. {hint}")

    def draw(self, batch: Sequence[Example], rollouts: Rollouts, progress: Progress) -> Sequence[Example]:
        """Choose new student responses, replayed ones, or the batch itself."""
        draw = step_rng("adaptive", rollouts, progress).random()
        if draw >= self._threshold:
            return batch
        remaining = 1 - progress.step / progress.total_steps
        if draw < self._threshold * remaining or not self._buffer.full:
            responses = rollouts.respond(batch, "student", self._options.temperature)
            self._buffer.add(responses)
            return responses
        return self._buffer.sample(len(batch), step_rng("replay", rollouts, progress))

    def observe_validation(self, cross_entropy: float) -> None:
        """Accept the first value; when a later one is worse by the tolerance, accept it and raise the threshold.

        Raises:
            RunError: The value is NaN or infinite.
        """
        if not math.isfinite(cross_entropy):
            raise RunError(f"validation cross-entropy must be finite for the policy adaptive (got {cross_entropy})")
        if self._accepted is None:
            self._accepted = cross_entropy
        elif cross_entropy >= self._accepted + self._options.tolerance:
            self._accepted = cross_entropy
            # Rounded, or ten times 0.1 would stop short of 1.
            self._threshold = min(round(self._threshold + self._options.increment, 12), 1.0)

    def state(self) -> JsonValue:
        """Return threshold, accepted cross-entropy and buffer."""
        state = _State(threshold=self._threshold, accepted=self._accepted, buffer=self._buffer.state())
        dumped: JsonValue = state.model_dump(mode="json")
        return dumped

    def restore(self, state: JsonValue) -> None:
        """Restore threshold, accepted cross-entropy and buffer."""
        restored = _State.model_validate(state)
        self._threshold, self._accepted = restored.threshold, restored.accepted
        self._buffer.restore(restored.buffer)
