"""Importance re-estimated from hidden states."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mta_framework import ImportanceEstimator, PluginParams, States

if TYPE_CHECKING:
    from torch import Tensor


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
            attention_BTT = _attention(hidden_BTD.float(), mask_BT.bool())
            row_BT = torch.ones_like(mask_BT) if self.params.padding_rows else mask_BT
            weight_BT = torch.einsum("bt,btu->bu", row_BT.float(), attention_BTT)
            weight_BT /= row_BT.sum(1, keepdim=True).clamp_min(1)
        return torch.where(mask_BT.sum(1, keepdim=True) == 1, 1.0, weight_BT) * mask_BT


def _attention(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Row t: how token t spreads over the other tokens of its text; finite even where there is none."""
    import torch

    length, width = hidden_BTD.shape[1:]
    scaled_BTD = hidden_BTD / (hidden_BTD.std(-1, keepdim=True) + 1e-5)
    score_BTT = scaled_BTD @ scaled_BTD.transpose(1, 2) / width**0.5
    itself_TT = torch.eye(length, dtype=torch.bool, device=hidden_BTD.device)
    score_BTT.masked_fill_(~mask_BT[:, None, :] | itself_TT, torch.finfo(score_BTT.dtype).min)
    return score_BTT.softmax(-1)
