"""Importance by how little the teacher expected a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mta_framework import ImportanceEstimator, States

if TYPE_CHECKING:
    from torch import Tensor


class Surprisal(ImportanceEstimator):
    """The teacher's -log p of the token, in nats: what it could have said itself counts little.

    ``w_t = -log p(x_t | x_1 ... x_{t-1})``, from the final state of the token before. Nothing predicts the first token
    of a text: it gets the mean of the others, and 1 where there are none.
    """

    NAME = "surprisal"
    BY_TEACHER = True

    def weigh(self, states: States, layer: int, mask_BT: Tensor) -> Tensor:
        """Weights in nats, float32. The head is applied to all attended tokens but the last of each text, in chunks.

        Raises:
            ValueError: The states have no tokens.
        """
        from torch.nn import functional

        from mta_framework import chunked_loss

        if states.input_ids_BT is None:
            raise ValueError("surprisal needs the tokens that the states are of (got states without input_ids_BT)")
        before = functional.pad(mask_BT[:, 1:], (0, 1)).flatten().nonzero().squeeze(1)
        final = states.final_BTD.detach().flatten(0, 1).index_select(0, before)
        target = states.input_ids_BT.flatten()[before + 1]
        readout = chunked_loss.HeadInputs(final, states.head)
        surprisal = chunked_loss.chunked_values(chunked_loss.cross_entropy, readout, None, target)
        weight_BT = surprisal.new_zeros(mask_BT.shape)
        weight_BT.view(-1).index_copy_(0, before + 1, surprisal)
        return _with_first_token(weight_BT, mask_BT).float()


def _with_first_token(weight_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Each first token gets the mean of the others of its text."""
    others_B = mask_BT.sum(1) - 1
    mean_B = (weight_BT.sum(1) / others_B.clamp_min(1)).masked_fill(others_B == 0, 1.0)
    weight_BT[:, 0] = mean_B * mask_BT[:, 0]
    return weight_BT
