"""Whether a freshly described model runs at all: some values build a model that no text gets through."""

from __future__ import annotations

import copy

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

_LENGTH = 2


def check_runs(config: PreTrainedConfig) -> None:
    """Build the model and send two tokens through it, as in training.

    On the meta device, without memory or time spent. What fails there, for good reasons or for want of an operation
    (mixtures of experts), is tried once more on the CPU. The state of the random generators stays as it is.

    Raises:
        ValueError: A weight is empty.
        Exception: Whatever transformers and torch say of values that do not fit.
    """
    with torch.device("meta"):
        shell = _built(config)
    empty = [name for name, parameter in shell.named_parameters() if parameter.numel() == 0]
    if empty:
        raise ValueError(f"{empty[0]} is empty")
    try:
        _run(shell)
    except Exception:
        with torch.random.fork_rng(devices=[]):
            _run(_built(config))


def _built(config: PreTrainedConfig) -> PreTrainedModel:
    # Eager attention asks no values of the mask, which the meta device has none of.
    return AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation="eager", dtype=torch.float32)


@torch.no_grad()
def _run(model: PreTrainedModel) -> None:
    input_ids_BT = torch.zeros(1, _LENGTH, dtype=torch.long, device=model.device)
    model.train()(input_ids=input_ids_BT, attention_mask=torch.ones_like(input_ids_BT), use_cache=False)
