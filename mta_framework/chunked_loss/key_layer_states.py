"""Hidden states of several layers at chosen positions, ready for the head (as in the logit lens)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mta_framework.errors import RunError
from mta_framework.types import Batch, Head, States


@dataclass(frozen=True)
class KeyLayerStates:
    """Hidden states of some key layers at some positions, ready for the head.

    Args:
        layers: One hidden_RD per layer, lowest layer first; R may exceed the number of positions.
        row_N: int64, the row of ``layers`` that holds each position, without repetition.
        head: The head of the same model.
    """

    layers: tuple[Tensor, ...]
    row_N: Tensor
    head: Head

    def stacked(self, positions: slice, dtype: torch.dtype) -> Tensor:
        """Stack the states of some positions as hidden_nKD in ``dtype``, without gradient."""
        rows = self.row_N[positions]
        return torch.stack([layer.detach().index_select(0, rows).to(dtype) for layer in self.layers], dim=1)


def select_key_layers(
    states: States, layers: Sequence[int], position_N: Tensor, final_norm: bool = False
) -> KeyLayerStates:
    """Select the states of some layers at some positions.

    Args:
        states: Hidden states that include these layers and, for ``final_norm`` or a decoder with an output
            projection, ``final_layers``.
        layers: 1-based layers, lowest first.
        position_N: int64, flat positions ``b * T + t``, without repetition; may be empty.
        final_norm: Whether intermediate layers pass the model's final norm first, as in the logit lens. The last
            layer is always read after it.

    Raises:
        RunError: ``final_norm`` is set and no final norm was found in the model.
    """
    tail = states.final_layers
    norm = tail.norm if tail is not None and final_norm else None
    if final_norm and norm is None:
        raise RunError(
            "final_norm is set, but no final norm was found in the model; such a model needs final_norm false. "
            "Take final_norm out."
        )
    projection = None if tail is None else tail.projection
    depth = None if tail is None else tail.shape.num_layers
    flat = [states.layers[layer].flatten(0, 1) for layer in layers]
    if norm is None and projection is None:
        return KeyLayerStates(tuple(flat), position_N, states.head)
    # Only at the positions that count: the states of padding may be anything, NaN included.
    selected = [hidden.index_select(0, position_N) for hidden in flat]
    if norm is not None:
        selected = [hidden if layer == depth else norm(hidden) for layer, hidden in zip(layers, selected, strict=True)]
    if projection is not None:
        selected = [projection(hidden) for hidden in selected]
    return KeyLayerStates(tuple(selected), torch.arange(len(position_N), device=position_N.device), states.head)


def distinct_positions(batch: Batch, *layers_BTD: Tensor) -> tuple[Tensor, Tensor]:
    """Merge attended positions that have the same states, so that each state is read out once.

    Texts with a common beginning, as prompts from one template have, share the states of that beginning: a batch of 8
    Alpaca prompts repeats some 170 tokens. Weighting each state by how often it occurs gives the same loss and, since
    equal states are the same function of the weights, the same gradient with respect to the weights.

    Args:
        batch: Micro-batch; only positions whose text is equal up to and including them can be merged.
        layers_BTD: All states that are going to be read out. Only positions where they are equal bit for bit are
            merged (dropout makes them differ).

    Returns:
        position_N, int64, ascending flat positions, and count_N, int64, the number of attended positions that each
        stands for.
    """
    mask_BT = batch.attention_mask_BT
    texts, width = mask_BT.shape
    ids_BT = batch.input_ids_BT.masked_fill(mask_BT == 0, -1)
    equal_BBT = (ids_BT[:, None] == ids_BT).cumprod(2).bool()
    text_B = torch.arange(texts, device=mask_BT.device)
    first_BT = torch.where(equal_BBT, text_B[:, None], texts).amin(1)
    position_A = batch.attended_A
    first_A = (first_BT * width + torch.arange(width, device=mask_BT.device)).flatten()[position_A]
    is_merged_A = first_A != position_A
    for layer in layers_BTD:
        both = (layer.detach().flatten(0, 1).index_select(0, positions) for positions in (position_A, first_A))
        is_merged_A &= torch.eq(*both).all(-1)
    count_BT = position_A.new_zeros(texts * width)
    count_BT.index_add_(0, torch.where(is_merged_A, first_A, position_A), torch.ones_like(position_A))
    # The one place of a step where the host waits for the device: only that knows which states are equal.
    position_N = position_A[~is_merged_A]
    return position_N, count_BT[position_N]
