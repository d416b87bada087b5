"""The interface of generation engines, selected by ``training.generation.engine`` and ``evaluation.engine``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mta_framework.errors import RunError
from mta_framework.generation.sampling_settings import Generation, Sampling

OnFinished = Callable[[int, Generation], None]
"""Called with the index of a prompt and its response."""


@dataclass(frozen=True)
class SavedModel:
    """A model saved as a transformers folder, for engines that load models themselves.

    Args:
        folder: Folder with weights and configuration.
        dtype: Dtype to compute in, e.g. ``bfloat16``.
    """

    folder: Path
    dtype: str


class Engine(ABC):
    """Generates responses with models that may be in training; each process passes its shard of the prompts.

    Attributes:
        name: Name of the engine in a spec.
    """

    name: ClassVar[str]

    def generate(
        self,
        by: str,
        prompt_ids: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        *,
        version: int = 0,
        progress_label: str | None = None,
        on_finished: OnFinished | None = None,
    ) -> list[Generation]:
        """Generate a response to every prompt, leaving the models, their modes and the random state unchanged.

        Args:
            by: Name of the model that responds.
            prompt_ids: Token ids of each prompt, without padding.
            sampling: Temperature and limits.
            seeds: Seed of each prompt. The same weights, prompt, sampling and seed give the same response.
            version: Version of the weights; it must change whenever the weights may have changed.
            progress_label: Label of a progress bar on standard error; None: no bar.
            on_finished: Called once for each prompt, with its index and response, as soon as the engine returns it. It
                must not modify the model.

        Returns:
            One generation per prompt, in the order of the prompts; empty for no prompts.

        Raises:
            InputError: The longest prompt and response do not fit into the model's positions.
            RunError: The engine returned too many or too few responses.
        """
        if not prompt_ids:
            return []
        generations = self._generate(by, prompt_ids, sampling, seeds, version, progress_label, on_finished)
        if len(generations) != len(prompt_ids):
            raise RunError(
                f"generation: the engine {self.name} must give one response of the {by} to each of "
                f"{len(prompt_ids)} prompts (got {len(generations)})"
            )
        return generations

    def close(self) -> None:
        """Release what the engine holds besides the models; it may generate again, for which it takes this anew."""
        return

    @abstractmethod
    def _generate(
        self,
        by: str,
        prompt_ids: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        version: int,
        progress_label: str | None,
        on_finished: OnFinished | None,
    ) -> list[Generation]:
        """Implement ``generate`` for one prompt or more."""
