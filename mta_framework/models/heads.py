"""The map from final hidden states to logits, taken out of a model so that it can be applied where it is needed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mta_framework.errors import Fault, InputError
from mta_framework.models.decoder import base_of, decoder_of
from mta_framework.types import Head

_PROBE_LENGTH = 8


def head_of(model: nn.Module, where: str = "student") -> Head:
    """The head of a causal language model, tied to its embeddings or not, with or without peft around it.

    Nothing is copied: ``weight_VD`` is the model's own parameter, so gradients arrive there. What families do to their
    logits is as in transformers 5: a factor (Cohere, Falcon H1, Granite, HyperCLOVA X, MiniCPM 3) or a soft cap
    (Gemma, RecurrentGemma, NanoChat); ``check_head`` finds out whether that was all.

    Args:
        model: Any causal language model of transformers, or a PeftModel around one.
        where: Place in the spec, for the error.

    Raises:
        InputError: The output layer is no plain linear layer.
    """
    base = base_of(model)
    layer = base.get_output_embeddings()
    if not isinstance(layer, nn.Linear):
        raise InputError(
            [
                Fault(
                    where,
                    f"{type(base).__name__} has no linear output layer (got {type(layer).__name__})",
                    "a causal language model whose output layer is linear, without an adapter on it, is allowed",
                    "Choose another model, or leave the output layer out of lora.target_modules.",
                )
            ]
        )
    return Head(weight_VD=layer.weight, bias_V=layer.bias, scale=_scale(base), softcap=_softcap(base))


def check_head(model: nn.Module, where: str = "student") -> None:
    """Make sure that the head reproduces the model's own logits, on a few tokens.

    Args:
        model: In any dtype, on any device; its mode and the state of the random generators stay as they are.
        where: Place in the spec, for the error.

    Raises:
        InputError: It does not: the architecture does something to its logits that ``Head`` can't express.
    """
    base = base_of(model)
    head = head_of(model, where)
    was_training = base.training
    base.eval()
    try:
        logits, expected = _both_logits(base, head)
    finally:
        base.train(was_training)
    tolerance = (1e-3 if expected.dtype == torch.float32 else 5e-2) * float(expected.float().abs().max())
    if logits.shape != expected.shape or float((logits - expected.float()).abs().max()) > tolerance:
        raise InputError(
            [
                Fault(
                    where,
                    f"{type(base).__name__} post-processes its logits in a way not supported",
                    "a linear output layer with bias, a constant factor and a soft cap is allowed",
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


def _scale(base: PreTrainedModel) -> float:
    config = base.config.get_text_config(decoder=True)
    scale = 1.0
    # Cohere keeps its factor on the model; MPT has a field of that name in its configuration and ignores it.
    if isinstance(factor := getattr(base, "logit_scale", None), int | float):
        scale *= factor
    if (factor := getattr(config, "lm_head_multiplier", None)) is not None:
        scale *= factor
    if (factor := getattr(config, "logits_scaling", None)) is not None:
        scale *= factor if config.model_type.startswith("hyperclovax") else 1 / factor
    return float(scale)


def _softcap(base: PreTrainedModel) -> float | None:
    config = base.config.get_text_config(decoder=True)
    for name in ("final_logit_softcapping", "logits_soft_cap"):
        if (cap := getattr(config, name, None)) is not None:
            return float(cap)
    return None
