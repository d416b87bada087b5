"""Hidden states that are about to be read out as next-token distributions."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mta_framework.types import Batch, Head, States


@dataclass(frozen=True)
class HeadInputs:
    """Hidden states and the head that turns them into logits.

    Args:
        hidden: ``hidden_ND``, one state per supervised position, or ``hidden_NKD``, K states per position (several
            layers, say); their logits have the shapes (N, V) and (N, K, V).
        head: The model's head.
    """

    hidden: Tensor
    head: Head


def supervised(states: States, batch: Batch) -> HeadInputs:
    """The final states of the supervised positions, in the order of ``batch.target_N``.

    Returns:
        A readout of hidden_ND in the dtype of the states, with gradient where they have one; N may be 0.
    """
    return at(states, batch.position_N)


def at(states: States, position_N: Tensor) -> HeadInputs:
    """The final states of any flat positions ``b * T + t``."""
    return HeadInputs(states.final_BTD.flatten(0, 1).index_select(0, position_N), states.head)
