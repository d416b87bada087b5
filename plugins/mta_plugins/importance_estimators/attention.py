"""Importance by self-attention between hidden states."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mta_framework import ImportanceEstimator, PluginParams, States

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK_PAIRS = 2**24
"""Most pairs of tokens in memory at once, over all texts: 64 MiB. Usual batches have fewer."""


class Attention(ImportanceEstimator):
    """The attention that a token gets from the other tokens of its text, without a causal mask.

    Hidden states are divided by their standard deviation over D (unbiased, + 1e-5; the mean is not subtracted); their
    scaled dot products go through a softmax over the other tokens of the text. A token's weight is the mean of its
    column.

    Source: MTA (arXiv 2605.01374v2), Eq. 5-7.
    """

    NAME = "attention"

    class Params(PluginParams):
        """Options."""

        padding_rows: bool = Field(
            False,
            description="Whether to average over the rows of padding too, as the authors' code does; weights then "
            "depend on how far a batch is padded.",
        )

    params: Params

    def weigh(self, states: States, layer: int, mask_BT: Tensor) -> Tensor:
        """Compute weight_BT in float32, also under autocast; it sums to 1 over a text, even one of a single token."""
        import torch

        hidden_BTD = states.layers[layer].detach()
        with torch.autocast(hidden_BTD.device.type, enabled=False):
            row_BT = torch.ones_like(mask_BT) if self.params.padding_rows else mask_BT
            weight_BT = _column_sums(_scaled(hidden_BTD.float()), mask_BT.bool(), row_BT.float())
            weight_BT /= row_BT.sum(1, keepdim=True).clamp_min(1)
        return torch.where(mask_BT.sum(1, keepdim=True) == 1, 1.0, weight_BT) * mask_BT


def _scaled(hidden_BTD: Tensor) -> Tensor:
    return hidden_BTD / (hidden_BTD.std(-1, keepdim=True) + 1e-5)


def _column_sums(scaled_BTD: Tensor, mask_BT: Tensor, row_BT: Tensor) -> Tensor:
    """Sum the attention that each token gets from the rows of weight 1, a block of rows at a time."""
    import torch

    texts, length = mask_BT.shape
    rows = max(1, _BLOCK_PAIRS // (texts * length))
    blocks = (slice(start, start + rows) for start in range(0, length, rows))
    sums = [torch.einsum("bt,btu->bu", row_BT[:, block], _attention(scaled_BTD, mask_BT, block)) for block in blocks]
    return sums[0] if len(sums) == 1 else torch.stack(sums).sum(0)


def _attention(scaled_BTD: Tensor, mask_BT: Tensor, block: slice) -> Tensor:
    """Attention of some tokens (rows) to the other tokens of their text; finite even where there is none."""
    import torch

    length, width = scaled_BTD.shape[1:]
    score_BtT = scaled_BTD[:, block] @ scaled_BTD.transpose(1, 2) / width**0.5
    index_T = torch.arange(length, device=scaled_BTD.device)
    itself_tT = index_T[block, None] == index_T
    score_BtT.masked_fill_(~mask_BT[:, None, :] | itself_tT, torch.finfo(score_BtT.dtype).min)
    return score_BtT.softmax(-1)
