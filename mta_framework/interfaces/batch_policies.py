"""The contract of batch policies, which base losses create, and of the rollouts that they use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from pydantic import JsonValue

from mta_framework.interfaces.plugin import PluginParams
from mta_framework.types import Example, Progress, Responder


class Rollouts(ABC):
    """Writes responses during training, for a batch policy.

    Every process makes the same calls with the same texts and gets the same responses; the work is shared among the
    processes.

    Attributes:
        seed: Seed of the run, from which every random stream is derived.
        steps_per_epoch: Number of optimiser steps per epoch.
    """

    seed: int
    steps_per_epoch: int

    @abstractmethod
    def respond(self, prompts: Sequence[Example], by: Responder, temperature: float) -> list[Example]:
        """Sample a response to each prompt from a model with its present weights, anew at every step.

        Args:
            prompts: Texts whose prompts are answered; their responses are ignored.
            by: The model that responds.
            temperature: Sampling temperature, above 0; tokens are sampled from the whole distribution.

        Returns:
            One text per prompt, in their order, with its spans. The response is supervised from its first token on. A
            finished response ends with exactly one end-of-text token, and may consist of it alone; a response that was
            cut off at the length limit has none. The student's have ``log_probs`` if the base loss needs them.
        """

    @abstractmethod
    def respond_cached(
        self, prompts: Sequence[Example], by: Responder, temperature: float, model_state: str
    ) -> list[Example]:
        """Return a response to each prompt from disk; missing ones are sampled in bulk first.

        The same prompt, model state and temperature always give the same response.

        Args:
            prompts: Texts whose prompts are answered; their responses are ignored.
            by: The model that responds.
            temperature: Sampling temperature, above 0.
            model_state: Value of ``model_state(by)`` when these responses were first requested.

        Returns:
            One text per prompt, as from ``respond``.

        Raises:
            RunError: Responses are missing on disk, and the model's weights have changed since.
        """

    @abstractmethod
    def model_state(self, by: Responder) -> str:
        """Compute a digest of a model's present weights."""

    @abstractmethod
    def upcoming(self, steps: int) -> list[Example]:
        """List the texts of the training set that the next steps will draw, each text once.

        Args:
            steps: Number of optimiser steps, the present one included; steps after the end of training are ignored.
        """


class BatchPolicy(ABC):
    """Chooses the texts of each training step: those of the training set, or responses written during training.

    Every process has its own copy, and all copies must choose alike: derive every random decision from
    ``rollouts.seed`` and ``progress.step`` alone.

    Attributes:
        RESPONDERS: The models that write responses.
        NEEDS_VALIDATION: Whether it needs the validation loss.
        USES_DATA_RESPONSES: Whether some steps train on the responses of the data set. If not, nothing of the teacher
            is kept on them (``teacher.cache``).
        TEXTS_PER_PROMPT: Number of texts that ``draw`` returns per text of the batch; ``mta run --dry-run``
            estimates memory from it.
        temperature: Sampling temperature of all its responses, which ``mta check`` compares with what the engine
            offers; None: not known before the run.
    """

    RESPONDERS: ClassVar[tuple[Responder, ...]] = ("student",)
    NEEDS_VALIDATION: ClassVar[bool] = False
    USES_DATA_RESPONSES: bool = True
    TEXTS_PER_PROMPT: ClassVar[int] = 1
    temperature: float | None = None

    @abstractmethod
    def draw(self, batch: Sequence[Example], rollouts: Rollouts, progress: Progress) -> Sequence[Example]:
        """Choose the texts of one training step.

        Args:
            batch: Global batch of the training set, over all micro-batches and processes.
            rollouts: Writes responses.
            progress: Finished steps.

        Returns:
            Global batch to train on: as many texts as ``batch`` has, or the same multiple of that at every step.
        """

    def check(self, batch_size: int) -> None:  # noqa: B027
        """Check whether the policy works with global batches of this size, before a run starts.

        Args:
            batch_size: Texts per optimiser step (``training.batch_size``).

        Raises:
            ValueError: It does not. Its message reads ``problem; expected NOUN PHRASE. What to do.``
        """

    def observe_validation(self, cross_entropy: float) -> None:  # noqa: B027
        """Receive the validation loss, before the first step (if ``NEEDS_VALIDATION``) and whenever it is computed.

        Args:
            cross_entropy: The student's mean cross-entropy on the validation set, in nats per supervised token.
        """

    def state(self) -> JsonValue:
        """Return whatever later choices depend on besides seed and progress, as JSON for the checkpoint."""
        return None

    def restore(self, state: JsonValue) -> None:  # noqa: B027
        """Continue from a checkpoint; does nothing by default.

        Args:
            state: Value that ``state`` returned, after a round trip through JSON.
        """


class BatchPolicyOptions(PluginParams):
    """Base of the options of a batch policy, which a base loss takes as its option ``batches``."""

    @abstractmethod
    def create(self) -> BatchPolicy | None:
        """Create the policy of one run; None: every step trains on the data set's responses."""
