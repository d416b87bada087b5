"""Finds the parts of a causal language model: decoder, decoder blocks, the modules beside the blocks, and the head."""

from __future__ import annotations

from typing import cast

from peft import PeftModel
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from mta_framework.errors import Fault, InputError
from mta_framework.types import Head, ModelShape

_USUAL_NAMES = ("layers", "h", "blocks")

_DECODERS = {"Llama4ForCausalLM": "model"}
"""Architectures whose ``get_decoder`` gives something else -> the attribute that holds their decoder."""


def base_of(model: nn.Module) -> PreTrainedModel:
    """Return the transformers model without its PEFT wrapper; adapters stay inside its modules."""
    return cast(PreTrainedModel, model.get_base_model() if isinstance(model, PeftModel) else model)


def decoder_of(model: nn.Module) -> PreTrainedModel:
    """Return the decoder: the model without its language-model head, up to and including the final norm."""
    base = base_of(model)
    name = _DECODERS.get(type(base).__name__)
    return cast(PreTrainedModel, base.get_decoder() if name is None else getattr(base, name))


def blocks_of(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Find the decoder blocks.

    Returns:
        The name of the list of blocks within ``base_of(model)``, e.g. ``model.layers``, and the blocks, lowest first.

    Raises:
        ValueError: The architecture has no module list with the number of blocks that its configuration states.
    """
    base, decoder = base_of(model), decoder_of(model)
    depth = shape_of(model).num_layers
    block_lists = [
        (name, module)
        for name, module in decoder.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    if not block_lists:
        raise ValueError(f"{type(base).__name__} keeps no list of {depth} decoder blocks")
    # Some architectures keep other lists of the same length (norms, embeddings per layer), or lists inside blocks.
    name, blocks = min(
        block_lists, key=lambda entry: (entry[0].count("."), entry[0].split(".")[-1] not in _USUAL_NAMES)
    )
    prefix = next(path for path, module in base.named_modules() if module is decoder)
    return f"{prefix}.{name}" if prefix else name, blocks


def outer_modules_of(model: nn.Module) -> list[nn.Module]:
    """Return the modules beside the decoder blocks: embeddings, norms and projections, in no particular order."""
    name, blocks = blocks_of(model)
    return [
        module for module in base_of(model).get_submodule(name.rpartition(".")[0]).children() if module is not blocks
    ]


def shape_of(model: nn.Module | PreTrainedConfig) -> ModelShape:
    """Read the number of decoder blocks and the width of hidden states from a model or its configuration."""
    config = model if isinstance(model, PreTrainedConfig) else base_of(model).config
    text = config.get_text_config(decoder=True)
    return ModelShape(num_layers=text.num_hidden_layers, hidden_size=text.hidden_size)


def head_of(model: nn.Module, where: str = "student") -> Head:
    """Extract the head of a causal language model, whether or not it is tied to the embeddings.

    Nothing is copied: ``weight_VD`` is the model's parameter, so gradients accumulate there. Post-processing of logits
    follows transformers 5: a factor (Cohere, Falcon H1, Granite, HyperCLOVA X, MiniCPM 3) or a soft cap (Gemma,
    RecurrentGemma, NanoChat). ``check_head`` verifies that the architecture does nothing else to its logits.

    Args:
        model: Any causal language model of transformers, or a PeftModel around one.
        where: Field of the spec that names the model, for the error.

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
                    "a causal language model whose output layer is linear and carries no adapter",
                    "Choose another model, or leave the output layer out of lora.target_modules.",
                )
            ]
        )
    return Head(weight_VD=layer.weight, bias_V=layer.bias, scale=_scale(base), softcap=_softcap(base))


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
