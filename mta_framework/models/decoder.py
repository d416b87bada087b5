"""Where the parts of a causal language model are."""

from __future__ import annotations

from typing import cast

from peft import PeftModel
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from mta_framework.types import ModelShape

_USUAL_NAMES = ("layers", "h", "blocks")


def base_of(model: nn.Module) -> PreTrainedModel:
    """The transformers model itself, without peft's wrapper; adapters stay inside its modules."""
    return cast(PreTrainedModel, model.get_base_model() if isinstance(model, PeftModel) else model)


def decoder_of(model: nn.Module) -> PreTrainedModel:
    """The part that ends in the final norm: everything but the head."""
    return cast(PreTrainedModel, base_of(model).get_decoder())


def blocks_of(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The decoder blocks.

    Returns:
        Their name within ``base_of(model)``, e.g. ``model.layers``, and the blocks, lowest first.

    Raises:
        ValueError: The architecture keeps no list of as many blocks as its configuration says.
    """
    base, decoder = base_of(model), decoder_of(model)
    depth = shape_of(model).num_layers
    found = [
        (name, module)
        for name, module in decoder.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    if not found:
        raise ValueError(f"{type(base).__name__} keeps no list of {depth} decoder blocks")
    # Some architectures keep other lists of the same length (norms, embeddings per layer), or lists inside blocks.
    name, blocks = min(found, key=lambda entry: (entry[0].count("."), entry[0].split(".")[-1] not in _USUAL_NAMES))
    prefix = next(own for own, module in base.named_modules() if module is decoder)
    return f"{prefix}.{name}" if prefix else name, blocks


def ends_of(model: nn.Module) -> list[nn.Module]:
    """What stands beside the decoder blocks: embeddings, norms and projections, in no particular order."""
    name, blocks = blocks_of(model)
    return [
        module for module in base_of(model).get_submodule(name.rpartition(".")[0]).children() if module is not blocks
    ]


def shape_of(model: nn.Module | PreTrainedConfig) -> ModelShape:
    """Number of decoder blocks and width of their hidden states, of a model or of its configuration."""
    config = model if isinstance(model, PreTrainedConfig) else base_of(model).config
    text = config.get_text_config(decoder=True)
    return ModelShape(num_layers=text.num_hidden_layers, hidden_size=text.hidden_size)
