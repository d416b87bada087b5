"""Attention without masks where texts are padded on the right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask


@contextmanager
def padded_on_the_right(device: torch.device) -> Iterator[None]:
    """Leave the masks of padding out in a block, in which all texts are padded on the right.

    No token attends to padding then, as it comes later. Without a mask, attention takes kernels that are causal by
    themselves, and transformers does not ask the device whether there is padding, for which the host would wait. On the
    CPU nothing changes: its results are the same bits with every version.

    Args:
        device: Device of the models that run in the block.
    """
    if device.type == "cpu":
        yield
        return
    without = {"sdpa": _sdpa_mask, "flash_attention_2": _flash_mask}
    ALL_MASK_ATTENTION_FUNCTIONS.update(without)
    try:
        yield
    finally:
        for name in without:
            del ALL_MASK_ATTENTION_FUNCTIONS[name]


def _sdpa_mask(**options: Any) -> Tensor | None:
    """No mask where attention is plainly causal; else one that is made without a look at the padding."""
    window = options.get("local_size")
    if options.get("allow_is_causal_skip", True) and (window is None or options["kv_length"] < window):
        return None
    return sdpa_mask(**{**options, "allow_is_causal_skip": False})


def _flash_mask(**options: Any) -> None:
    """No mask: the kernel is causal, and knows the window."""
