"""Makes the engine that a spec asks for, and says where it cannot run."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mta_framework.distributed import processes
from mta_framework.errors import Fault
from mta_framework.generation.engine import Engine, SavedModel
from mta_framework.spec.section import EngineName

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


def make_engine(
    name: EngineName,
    models: Mapping[str, nn.Module | SavedModel],
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
