"""Checks that the head, as it is taken out of a model, reproduces the logits of the model."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mta_framework.errors import Fault, InputError, error_text
from mta_framework.models.decoder import base_of, decoder_of, head_of
from mta_framework.types import Head

_PROBE_LENGTH = 8


def check_head(model: nn.Module, where: str = "student") -> None:
    """Check on a few tokens that the extracted head reproduces the model's logits.

    Args:
        model: Model in any dtype, on any device; its mode and the state of the random generators are left unchanged.
        where: Field of the spec that names the model, for the error.

    Raises:
        InputError: The decoder cannot be run by itself, or the architecture post-processes its logits in a way that
            ``Head`` cannot express.
    """
    base = base_of(model)
    head = head_of(model, where)
    was_training = base.training
    base.eval()
    try:
        logits, expected = _both_logits(base, head)
    except Exception as error:  # of transformers, for architectures of an unknown form
        problem = f"{type(base).__name__} cannot be run without its output layer (got {error_text(error)})"
        hint = "Choose a model of another architecture."
        raise InputError([Fault(where, problem, "a decoder that returns final hidden states", hint)]) from error
    finally:
        base.train(was_training)
    tolerance = (1e-3 if expected.dtype == torch.float32 else 5e-2) * float(expected.float().abs().max())
    if logits.shape != expected.shape or float((logits - expected.float()).abs().max()) > tolerance:
        raise InputError(
            [
                Fault(
                    where,
                    f"{type(base).__name__} post-processes its logits in an unsupported way",
                    "at most a bias, a constant factor and a soft cap after the output layer",
                    "Choose a model of another architecture.",
                )
            ]
        )


@torch.inference_mode()
def _both_logits(base: PreTrainedModel, head: Head) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    input_ids_BT = torch.randint(head.weight_VD.shape[0], (1, _PROBE_LENGTH), generator=generator)
    inputs = {"input_ids": input_ids_BT.to(head.weight_VD.device), "use_cache": False}
    final_BTD = decoder_of(base)(**inputs).last_hidden_state
    logits = nn.functional.linear(final_BTD.to(head.weight_VD.dtype), head.weight_VD, head.bias_V).float() * head.scale
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return logits, base(**inputs).logits
