"""The contract of batch policies, which base losses own, and of what writes responses for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from pydantic import JsonValue

from mta_framework.types import (
    Example,
    Progress,
    Responder,
)


class Rollouts(ABC):
    """What a batch policy may ask for: responses written during training, and what comes next.

    Every process calls with the same texts and gets the same answers; the work is shared among them.

    Attributes:
        seed: Of the run.
        steps_per_epoch: Optimiser steps.
    """

    seed: int
    steps_per_epoch: int

    @abstractmethod
    def respond(self, prompts: Sequence[Example], by: Responder, temperature: float) -> list[Example]:
        """Responses to these prompts by a model as it is now, drawn anew at every step.

        Args:
            prompts: Texts, of which only the prompts matter.
            by: The model.
            temperature: Of sampling, above 0, from the whole distribution.

        Returns:
            One text per prompt, in their order, with its spans. The response is supervised from its first token on;
            one that came to an end ends with the end-of-text token, once; it may be empty but for that.
        """

    @abstractmethod
    def stored(self, prompts: Sequence[Example], by: Responder, temperature: float, state: str) -> list[Example]:
        """As ``respond``, but kept on disk by model state and prompt: the same prompt gives the same response.

        Args:
            prompts: As above. What is not on disk is generated in bulk.
            by: The model.
            temperature: As above.
            state: What ``model_state`` said of the model when its responses were first asked for.

        Raises:
            RunError: Responses are missing on disk, and the model has changed since.
        """

    @abstractmethod
    def model_state(self, by: Responder) -> str:
        """A digest of a model's weights as they are now."""

    @abstractmethod
    def upcoming(self, steps: int) -> list[Example]:
        """The texts of the data that the next steps will be given, the present one included; each once.

        Args:
            steps: Optimiser steps; those after the end of training are left out.
        """


class BatchPolicy(ABC):
    """Decides what is trained on, step by step: the data, or responses that are written during training.

    Every process has its own copy, and all copies make the same decisions: whatever is random comes from the seed and
    the step alone.

    Attributes:
        RESPONDERS: The models that write responses.
        NEEDS_VALIDATION: Whether ``validated`` is what it lives on.
        TEXTS_PER_PROMPT: How many texts ``draw`` makes of each that it is given; the plan's memory depends on it.
    """

    RESPONDERS: ClassVar[tuple[Responder, ...]] = ("student",)
    NEEDS_VALIDATION: ClassVar[bool] = False
    TEXTS_PER_PROMPT: ClassVar[int] = 1

    @abstractmethod
    def draw(self, batch: Sequence[Example], rollouts: Rollouts, progress: Progress) -> Sequence[Example]:
        """Choose what one step is trained on.

        Args:
            batch: The whole global batch of the data, over all micro-batches and processes.
            rollouts: Writes responses.
            progress: Steps that are done.

        Returns:
            The whole global batch to train on: as many texts, or the same multiple of it at every step.
        """

    def check(self, batch_size: int) -> None:  # noqa: B027
        """Refuse global batches of this many texts before anything slow starts.

        Raises:
            ValueError: The policy can't work with them; its message reads ``what is wrong; what is allowed. What to
                do.``
        """

    def validated(self, cross_entropy: float) -> None:  # noqa: B027
        """The student's cross-entropy on the validation set, before the first step and after each epoch."""

    def state(self) -> JsonValue:
        """All that the next decisions depend on, besides seed and progress; part of every checkpoint."""
        return None

    def restore(self, state: JsonValue) -> None:  # noqa: B027
        """Go on from what ``state`` gave."""
