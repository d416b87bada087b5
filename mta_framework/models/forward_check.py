"""Checks, without weights, that a model runs and that its decoder is of a form that is known."""

from __future__ import annotations

import copy

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from mta_framework.errors import Fault, InputError
from mta_framework.models.decoder import decoder_of

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


def check_decoder(model: PreTrainedModel, where: str) -> None:
    """Check that the decoder of a model returns its final hidden states.

    A pass that fails says nothing, since some operations have no meta implementation; ``check_head`` decides once there
    are weights.

    Args:
        model: Model on the meta device.
        where: Field of the spec that names the model, for the error.

    Raises:
        InputError: The decoder returns something else.
    """
    input_ids_BT = torch.zeros(1, _LENGTH, dtype=torch.long, device=model.device)
    try:
        with torch.no_grad():
            output = decoder_of(model)(
                input_ids=input_ids_BT, attention_mask=torch.ones_like(input_ids_BT), use_cache=False
            )
    except Exception:
        return
    states = getattr(output, "last_hidden_state", None)
    if not isinstance(states, torch.Tensor) or states.shape[:2] != input_ids_BT.shape:
        problem = f"{type(model).__name__} gives no final hidden states apart from its logits"
        problem += f" (got {type(output).__name__})"
        hint = "Choose a model of another architecture."
        raise InputError([Fault(where, problem, "a decoder that returns them", hint)])


def _built(config: PreTrainedConfig) -> PreTrainedModel:
    # Eager attention does not read the values of the mask; tensors on the meta device have none.
    return AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation="eager", dtype=torch.float32)


@torch.no_grad()
def _run(model: PreTrainedModel) -> None:
    input_ids_BT = torch.zeros(1, _LENGTH, dtype=torch.long, device=model.device)
    model.train()(input_ids=input_ids_BT, attention_mask=torch.ones_like(input_ids_BT), use_cache=False)
