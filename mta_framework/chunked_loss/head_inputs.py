"""Hidden states at chosen positions, together with the head that turns them into logits."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mta_framework.types import Batch, Head, States


@dataclass(frozen=True)
class HeadInputs:
    """Hidden states at N positions, and the head that turns them into next-token logits.

    Args:
        hidden: ``hidden_ND``, one state per position, or ``hidden_NKD``, K states per position (of several layers,
            say). Their logits have the shapes (N, V) and (N, K, V). N may be 0.
        head: The head of the same model.
    """

    hidden: Tensor
    head: Head


def select_supervised(states: States, batch: Batch) -> HeadInputs:
    """Select the final states of the supervised positions of a batch, in the order of ``batch.target_N``.

    Args:
        states: Hidden states of one model on ``batch``.
        batch: Micro-batch whose ``position_N`` names the supervised positions.

    Returns:
        hidden_ND in the dtype of the states, with their gradient if they have one; N may be 0.
    """
    return select_positions(states, batch.position_N)


def select_positions(states: States, position_N: Tensor) -> HeadInputs:
    """Select the final states of any positions.

    Args:
        states: Hidden states of one model on a batch of padded length T.
        position_N: int64, flat positions ``b * T + t``.

    Returns:
        hidden_ND in the dtype of the states, with their gradient if they have one; N may be 0.
    """
    return HeadInputs(states.final_BTD.flatten(0, 1).index_select(0, position_N), states.head)
