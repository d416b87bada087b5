"""Creates the generation engine that a spec names, and reports why an engine cannot run."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
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
    stop_ids: Sequence[int],
    folder: Path,
    max_length: int,
    *,
    keep_log_probs: bool = False,
) -> Engine:
    """Create the generation engine that a spec names; ``engine_fault`` checks beforehand whether it can run here.

    Args:
        name: Name of the engine.
        models: Models by name. Live models generate with their current weights; ``vllm`` also accepts saved models.
        tokenizer: Tokenizer of all models.
        stop_ids: Ids of the tokens that end a response.
        folder: Folder for exported weights, made when an engine needs it.
        max_length: Maximum number of tokens of a prompt and its response together.
        keep_log_probs: Whether to keep the log-probability of every generated token; only ``transformers`` can.
    """
    # Engines are imported only when chosen, so that neither needs the dependencies of the other.
    if name == "vllm":
        from mta_framework.generation.vllm_engine import VllmEngine

        return VllmEngine(models, tokenizer, stop_ids, folder, max_length)
    from mta_framework.generation.transformers_engine import TransformersEngine

    return TransformersEngine(models, tokenizer, stop_ids, keep_log_probs)


def engine_fault(name: EngineName, where: str) -> Fault | None:
    """Check without loading an engine whether it can run in this environment.

    Args:
        name: Name of the engine.
        where: Field of the spec that names it.

    Returns:
        The fault, or None if the engine can run.
    """
    if name == "transformers":
        return None
    expected, hint = "'transformers', which runs everywhere", "Choose it, or "
    if importlib.util.find_spec("vllm") is None:
        return Fault(where, "vllm is not installed (got 'vllm')", expected, f"{hint}install vllm.")
    if (count := processes().num_processes) > 1:
        problem = f"vllm generates for one process, and this run has {count} (got 'vllm')"
        return Fault(where, problem, expected, f"{hint}run one process.")
    return None
