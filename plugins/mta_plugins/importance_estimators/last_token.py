"""Importance by the attention of a text's last token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mta_framework import ImportanceEstimator, States

if TYPE_CHECKING:
    from torch import Tensor


class LastToken(ImportanceEstimator):
    """The attention that a token gets from the last token of its text, between states of the last layer.

    The final hidden states are divided by their standard deviation over D (unbiased, + 1e-5; the mean is not
    subtracted); the scaled dot products of the last token with the tokens before it go through a softmax. The last
    token itself, whose product with itself would outweigh all others, gets the mean of the others, or 1 if there are
    none. Weights are the same at all key layers.

    Source: SRA (arXiv 2605.01205), which reads them off the attention matrices of the last layer.
    """

    NAME = "last_token"

    def weigh(self, states: States, layer: int, mask_BT: Tensor) -> Tensor:
        """Compute weight_BT in float32, also under autocast; the tokens before a text's last one sum to 1."""
        import torch

        hidden_BTD = states.final_BTD.detach()
        last_B1 = mask_BT.sum(1, keepdim=True) - 1
        is_last_BT = torch.arange(mask_BT.shape[1], device=mask_BT.device) == last_B1
        with torch.autocast(hidden_BTD.device.type, enabled=False):
            scaled_BTD = hidden_BTD.float() / (hidden_BTD.float().std(-1, keepdim=True) + 1e-5)
            last_B1D = scaled_BTD.take_along_dim(last_B1.clamp_min(0).unsqueeze(-1), dim=1)
            score_BT = (last_B1D * scaled_BTD).sum(-1) / scaled_BTD.shape[-1] ** 0.5
        is_before_BT = mask_BT.bool() & ~is_last_BT
        score_BT = score_BT.masked_fill(~is_before_BT, torch.finfo(score_BT.dtype).min)
        weight_BT = score_BT.softmax(-1) * is_before_BT
        mean_B1 = 1 / last_B1.clamp_min(1)
        return torch.where(is_last_BT, mean_B1, weight_BT) * mask_BT
