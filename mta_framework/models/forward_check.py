"""Checks that a model built from ``student.config`` runs: some configurations build but fail in the forward pass."""

from __future__ import annotations

import copy

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

_LENGTH = 2


def check_forward(config: PreTrainedConfig) -> None:
    """Build a model and run a forward pass of two tokens in training mode.

    It runs on the meta device, at no cost in memory. A pass that fails there is repeated on the CPU, since some
    operations (mixtures of experts) have no meta implementation. The state of the random generators is left unchanged.

    Args:
        config: Configuration of the model; not modified.

    Raises:
        ValueError: A weight is empty.
        Exception: Any exception that transformers or torch raises for values that do not fit.
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
    # Eager attention does not read the values of the mask; tensors on the meta device have none.
    return AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation="eager", dtype=torch.float32)


@torch.no_grad()
def _run(model: PreTrainedModel) -> None:
    input_ids_BT = torch.zeros(1, _LENGTH, dtype=torch.long, device=model.device)
    model.train()(input_ids=input_ids_BT, attention_mask=torch.ones_like(input_ids_BT), use_cache=False)
