"""What writes responses: the small interface behind ``training.generation.engine`` and ``evaluation.engine``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mta_framework.errors import RunError
from mta_framework.generation.sampling import Generation, Sampling

if TYPE_CHECKING:
    pass

Done = Callable[[int, Generation], None]


@dataclass(frozen=True)
class SavedModel:
    """A model that lies in a transformers folder, for engines that load it themselves.

    Args:
        folder: Weights and configuration.
        dtype: What it is computed in, e.g. ``bfloat16``.
    """

    folder: Path
    dtype: str


class Engine(ABC):
    """Generates with models that may be in the midst of training; each process hands it its share of the prompts.

    Attributes:
        name: As in the spec.
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
        done: Done | None = None,
    ) -> list[Generation]:
        """Respond to every prompt; the models, their modes and the random state are left as they are.

        Args:
            by: Name of the model.
            prompt_ids: Token ids without padding.
            sampling: Temperature and limits.
            seeds: One per prompt. The same weights, prompt, sampling and seed give the same response.
            version: Of the weights: another number whenever they may have changed.
            progress_label: What a progress bar on standard error says; None: no bar.
            done: Called once for each prompt, with its number and response, as soon as the engine gives it. It must
                leave the model alone.

        Returns:
            One generation per prompt, in the order of the prompts; empty for no prompts.

        Raises:
            InputError: The longest prompt and response do not fit into the model's positions.
            RunError: The engine gave more or fewer.
        """
        if not prompt_ids:
            return []
        generations = self._respond(by, prompt_ids, sampling, seeds, version, progress_label, done)
        if len(generations) != len(prompt_ids):
            raise RunError(
                f"generation: the engine {self.name} must give one response of the {by} to each of "
                f"{len(prompt_ids)} prompts (got {len(generations)})"
            )
        return generations

    @abstractmethod
    def _respond(
        self,
        by: str,
        prompt_ids: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        version: int,
        progress_label: str | None,
        done: Done | None,
    ) -> list[Generation]:
        """As ``generate``, for one prompt or more."""
