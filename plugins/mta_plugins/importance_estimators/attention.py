"""Importance re-estimated from hidden states."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mta_framework import ImportanceEstimator, PluginParams, States

if TYPE_CHECKING:
    from torch import Tensor

_STRIP = 2**24
"""Pairs of tokens that are looked at together, at the most, over all texts: 64 MiB. Usual batches have fewer."""


class Attention(ImportanceEstimator):
    """How much the other tokens of the text would attend to a token, without a causal mask.

    MTA, Eq. 5-7: states divided by their standard deviation over D (unbiased, + 1e-5; no mean subtraction), scaled
    dot products, softmax over the other tokens of the text; a token's weight is the mean of its column.
    """

    NAME = "attention"

    class Params(PluginParams):
        """Options."""

        padding_rows: bool = Field(
            False,
            description="Average over the rows of padding too, as the authors' code does; "
            "weights then depend on how far a batch is padded.",
        )

    params: Params

    def weigh(self, states: States, layer: int, mask_BT: Tensor) -> Tensor:
        """Weights in float32, also under autocast; they sum to 1 over a text. A text of one token gives it weight 1."""
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
    """How much attention each token gets from the rows that count, strip by strip of rows."""
    import torch

    texts, length = mask_BT.shape
    rows = max(1, _STRIP // (texts * length))
    strips = (slice(start, start + rows) for start in range(0, length, rows))
    found = [torch.einsum("bt,btu->bu", row_BT[:, strip], _attention(scaled_BTD, mask_BT, strip)) for strip in strips]
    return found[0] if len(found) == 1 else torch.stack(found).sum(0)


def _attention(scaled_BTD: Tensor, mask_BT: Tensor, strip: slice) -> Tensor:
    """Some rows; row t: how token t spreads over the other tokens of its text; finite even where there is none."""
    import torch

    length, width = scaled_BTD.shape[1:]
    score_BtT = scaled_BTD[:, strip] @ scaled_BTD.transpose(1, 2) / width**0.5
    number_T = torch.arange(length, device=scaled_BTD.device)
    itself_tT = number_T[strip, None] == number_T
    score_BtT.masked_fill_(~mask_BT[:, None, :] | itself_tT, torch.finfo(score_BtT.dtype).min)
    return score_BtT.softmax(-1)
