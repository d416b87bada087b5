"""What writes responses during training: the small interface behind ``training.generation.engine``."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mta_framework.errors import Fault, InputError, RunError
from mta_framework.generation.sampling import Generation
from mta_framework.processes import processes
from mta_framework.spec.sections import GenerationSection
from mta_framework.types import Responder

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


class Engine(ABC):
    """Generates with models that are being trained; each process has its own and hands it its share of the prompts.

    Attributes:
        name: As in the spec.
        chunk_size: How many prompts to hand over at once, at most, where there are many.
    """

    name: ClassVar[str]
    chunk_size: int

    def generate(
        self,
        by: Responder,
        prompt_ids: Sequence[Sequence[int]],
        seeds: Sequence[int],
        temperature: float,
        version: int,
    ) -> list[Generation]:
        """Respond to every prompt; the models, their modes and the random state are left as they are.

        Args:
            by: Which model.
            prompt_ids: Token ids without padding.
            seeds: One per prompt. The same weights, prompt, temperature and seed give the same response.
            temperature: Of sampling, from the whole distribution; 0 is greedy.
            version: Of the weights: another number whenever they may have changed.

        Returns:
            One generation per prompt, in the order of the prompts; empty for no prompts.

        Raises:
            RunError: The engine gave more or fewer.
        """
        if not prompt_ids:
            return []
        generations = self._respond(by, prompt_ids, seeds, temperature, version)
        if len(generations) != len(prompt_ids):
            raise RunError(
                f"training.generation.engine: {self.name} must give one response of the {by} to each of "
                f"{len(prompt_ids)} prompts (got {len(generations)})"
            )
        return generations

    @abstractmethod
    def _respond(
        self,
        by: Responder,
        prompt_ids: Sequence[Sequence[int]],
        seeds: Sequence[int],
        temperature: float,
        version: int,
    ) -> list[Generation]:
        """As ``generate``, for one prompt or more."""


def make_engine(
    section: GenerationSection,
    models: Mapping[Responder, nn.Module],
    tokenizer: PreTrainedTokenizerBase,
    max_new_tokens: int,
    folder: Path,
) -> Engine:
    """The engine that a spec asks for.

    Args:
        section: Names it.
        models: Those that may be asked, live: what is trained later is what generates then.
        tokenizer: Of all of them.
        max_new_tokens: Longest response, its end token included.
        folder: For copies of weights; made where one is needed.

    Raises:
        InputError: The engine does not run here (``engine_fault``).
    """
    if fault := engine_fault(section):
        raise InputError([fault])
    # The engines are imported where they are chosen: one must not cost, or break, what the other needs.
    if section.engine == "vllm":
        from mta_framework.generation.vllm_engine import VllmEngine

        return VllmEngine(models, tokenizer, max_new_tokens, section.batch_tokens, folder)
    from mta_framework.generation.transformers_engine import TransformersEngine

    return TransformersEngine(models, tokenizer, max_new_tokens, section.batch_tokens)


def engine_fault(section: GenerationSection) -> Fault | None:
    """Why the engine that a spec asks for does not run here, without loading it; None if it does."""
    if section.engine == "transformers":
        return None
    where, allowed, todo = "training.generation.engine", "transformers runs everywhere", "Choose it, or "
    if importlib.util.find_spec("vllm") is None:
        return Fault(where, "vllm is not installed (got 'vllm')", allowed, f"{todo}install vllm.")
    if (count := processes().num_processes) > 1:
        wrong = f"vllm generates for one process, and this run has {count} (got 'vllm')"
        return Fault(where, wrong, allowed, f"{todo}run one process.")
    return None
