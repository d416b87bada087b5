"""What writes responses: the small interface behind ``training.generation.engine`` and ``evaluation.engine``."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mta_framework.distributed import processes
from mta_framework.errors import Fault, RunError
from mta_framework.generation.sampling import Generation, Sampling
from mta_framework.spec.section import EngineName

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

Done = Callable[[int, Generation], None]


@dataclass(frozen=True)
class Stored:
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


def make_engine(
    name: EngineName,
    models: Mapping[str, nn.Module | Stored],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
) -> Engine:
    """The engine that a spec asks for; ``engine_fault`` says before whether it runs here.

    Args:
        name: Of the engine.
        models: Those that may be asked. Live ones: what is trained later is what generates then. ``vllm`` also takes
            stored ones.
        tokenizer: Of all of them.
        folder: For copies of weights; made where one is needed.
    """
    # The engines are imported where they are chosen: one must not cost, or break, what the other needs.
    if name == "vllm":
        from mta_framework.generation.vllm_engine import VllmEngine

        return VllmEngine(models, tokenizer, folder)
    from mta_framework.generation.transformers_engine import TransformersEngine

    return TransformersEngine(models, tokenizer)


def engine_fault(name: EngineName, where: str) -> Fault | None:
    """Why an engine does not run here, without loading it; None if it does.

    Args:
        name: Of the engine.
        where: The field that asks for it.
    """
    if name == "transformers":
        return None
    expected, hint = "transformers runs everywhere", "Choose it, or "
    if importlib.util.find_spec("vllm") is None:
        return Fault(where, "vllm is not installed (got 'vllm')", expected, f"{hint}install vllm.")
    if (count := processes().num_processes) > 1:
        problem = f"vllm generates for one process, and this run has {count} (got 'vllm')"
        return Fault(where, problem, expected, f"{hint}run one process.")
    return None
