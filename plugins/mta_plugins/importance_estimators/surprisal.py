"""Importance by the surprisal of a token to the teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mta_framework import ImportanceEstimator, States

if TYPE_CHECKING:
    from torch import Tensor


class Surprisal(ImportanceEstimator):
    """The surprisal -log p of a token under the teacher, in nats: expected tokens weigh little.

    ``w_t = -log p(x_t | x_1 ... x_{t-1})``, from the final state of the token before. The first token of a text has no
    prediction: it gets the mean of the others, or 1 if there are none.
    """

    NAME = "surprisal"
    BY_TEACHER = True

    def weigh(self, states: States, layer: int, mask_BT: Tensor) -> Tensor:
        """Compute weight_BT in nats, float32. The head is applied, in chunks, to all attended tokens but a text's last.

        Raises:
            ValueError: ``states.input_ids_BT`` is None.
        """
        from mta_framework import chunked_loss

        if states.input_ids_BT is None:
            raise ValueError("surprisal needs states with input_ids_BT (got None)")
        predicted = _predicted_positions(states, mask_BT)
        final = states.final_BTD.detach().flatten(0, 1).index_select(0, predicted - 1)
        target = states.input_ids_BT.flatten()[predicted]
        inputs = chunked_loss.HeadInputs(final, states.head)
        surprisal = chunked_loss.chunked_values(chunked_loss.cross_entropy, inputs, None, target)
        weight_BT = surprisal.new_zeros(mask_BT.shape)
        weight_BT.view(-1).index_copy_(0, predicted, surprisal)
        return _with_first_token(weight_BT, mask_BT).float()


def _predicted_positions(states: States, mask_BT: Tensor) -> Tensor:
    """The flat positions of all attended tokens but the first of each text, ascending; every text has a first token."""
    attended_A = mask_BT.flatten().nonzero().squeeze(1) if states.attended_A is None else states.attended_A
    texts, length = mask_BT.shape
    first_last_A = attended_A.masked_fill(attended_A % length == 0, texts * length).sort().values
    return first_last_A[: len(attended_A) - texts]


def _with_first_token(weight_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Give the first token of each text the mean of its other tokens."""
    others_B = mask_BT.sum(1) - 1
    mean_B = (weight_BT.sum(1) / others_B.clamp_min(1)).masked_fill(others_B == 0, 1.0)
    weight_BT[:, 0] = mean_B * mask_BT[:, 0]
    return weight_BT
