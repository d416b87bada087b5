"""AdamW with moments in 8 bit (bitsandbytes)."""

from __future__ import annotations

from torch import nn


def keep_embeddings_in_32_bit(model: nn.Module) -> None:
    """Give the moments of embeddings 32 bit, as transformers' trainer does: their gradients are too uneven for 8.

    Args:
        model: Model whose optimiser is an 8-bit one of bitsandbytes that has taken no step yet.
    """
    from bitsandbytes.optim.optimizer import GlobalOptimManager

    manager = GlobalOptimManager.get_instance()
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            manager.register_module_override(module, "weight", {"optim_bits": 32})
