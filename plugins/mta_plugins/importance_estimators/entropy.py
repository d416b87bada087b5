"""Importance by the entropy of the teacher's prediction."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mta_framework import ImportanceEstimator, States

if TYPE_CHECKING:
    from torch import Tensor


class Entropy(ImportanceEstimator):
    """The teacher's certainty: 1 where it predicts one token for sure, 0 where all tokens are equally likely.

    ``w_t = 1 - H(p_t) / log V`` with p_t the next-token distribution from the final state of token t: a token weighs as
    much as the teacher is certain after reading it.

    Source: the variant ``entropy`` in the code of MTA's authors.
    """

    NAME = "entropy"
    BY_TEACHER = True

    def weigh(self, states: States, layer: int, mask_BT: Tensor) -> Tensor:
        """Compute weight_BT in float32, from 0 to 1. The head is applied to all attended tokens, in chunks."""
        from mta_framework import chunked_loss

        position_A = mask_BT.flatten().nonzero().squeeze(1) if states.attended_A is None else states.attended_A
        final_AD = states.final_BTD.detach().flatten(0, 1).index_select(0, position_A)
        certainty_A = chunked_loss.chunked_values(_certainty, chunked_loss.HeadInputs(final_AD, states.head), None)
        weight = certainty_A.new_zeros(mask_BT.numel()).index_copy(0, position_A, certainty_A)
        return weight.float().view(mask_BT.shape)


def _certainty(logits_nV: Tensor) -> Tensor:
    import torch

    entropy_n = torch.special.entr(logits_nV.softmax(-1)).sum(-1)
    return (1 - entropy_n / math.log(logits_nV.shape[-1])).clamp_min(0)
