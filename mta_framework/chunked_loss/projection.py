"""Hidden states and their head: chosen positions, products, and the gradients of both from those of the logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mta_framework.types import Batch, Head, States

_FP16_SCALE = 64.0
"""Gradients of logits go through fp16 multiplied by this: unscaled, those of rare tokens (1e-7) would vanish."""


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


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which values of ``dtype`` are computed: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def widest_dtype(device: torch.device) -> torch.dtype:
    """The dtype for sums that gain by more than float32: float64 on the CPU and CUDA, float32 elsewhere (MPS has none).

    Args:
        device: Device of the sums.
    """
    return torch.float64 if device.type in ("cpu", "cuda") else torch.float32


class Projection:
    """Multiplies hidden states with the head, over the first ``vocabulary`` tokens; records no gradient.

    float32 states are multiplied in autocast's dtype where autocast is on; other states in their own dtype, since a
    teacher loaded in bf16 must not be squeezed into fp16. Create it under the caller's autocast, and use it with
    autocast off.

    Args:
        inputs: Hidden states and head.
        vocabulary: Number of tokens, from the first, that scores are computed for.
    """

    def __init__(self, inputs: HeadInputs, vocabulary: int):
        head, hidden = inputs.head, inputs.hidden.detach()
        kind = hidden.device.type
        autocast = hidden.dtype == torch.float32 and torch.is_autocast_enabled(kind)
        self.dtype = torch.get_autocast_dtype(kind) if autocast else hidden.dtype
        self.hidden = hidden.to(self.dtype)
        self.weight_VD = head.weight_VD.detach()[:vocabulary].to(self.dtype)
        self.bias_V = None if head.bias_V is None else head.bias_V.detach()[:vocabulary].to(self.dtype)
        self.head = head

    def scores(self, rows: slice) -> Tensor:
        """Compute ``h W^T + b`` at some positions, in the matmul's dtype: (n, V) or (n, K, V)."""
        return functional.linear(self.hidden[rows], self.weight_VD, self.bias_V)

    def write_scores(self, hidden_nD: Tensor, out_nV: Tensor) -> None:
        """Write ``h W^T + b`` of any hidden states, in the matmul's dtype, to ``out_nV``."""
        if self.bias_V is None:
            torch.mm(hidden_nD, self.weight_VD.T, out=out_nV)
        else:
            torch.addmm(self.bias_V, hidden_nD, self.weight_VD.T, out=out_nV)


def logits_of(scores: Tensor, head: Head) -> Tensor:
    """Turn scores into logits, ``cap(scale * scores)``, in at least float32; differentiable."""
    logits = scores.to(at_least_float32(scores.dtype))
    if head.scale != 1.0:
        logits = logits * head.scale
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


@dataclass
class Gradients:
    """Gradients of a sum with respect to hidden states and head, accumulated chunk by chunk in at least float32.

    Args:
        hidden: Gradient of the hidden states, shaped as they are; None if they need none.
        weight_VD: Gradient of the head's weight, over its whole vocabulary; None if it needs none.
        bias_V: Gradient of the head's bias; None if it needs none or there is no bias.
        scale: Factor by which all three are too large (loss scaling); divide by it in the end.
    """

    hidden: Tensor | None
    weight_VD: Tensor | None
    bias_V: Tensor | None
    scale: float

    @classmethod
    def of(cls, inputs: HeadInputs, projection: Projection) -> Gradients:
        """Zeros for those tensors of ``inputs`` that require a gradient."""
        hidden, weight_VD, bias_V = map(_zeros, (inputs.hidden, inputs.head.weight_VD, inputs.head.bias_V))
        return cls(hidden, weight_VD, bias_V, _FP16_SCALE if projection.dtype == torch.float16 else 1.0)

    def add(self, projection: Projection, rows: slice, score_gradients: Tensor) -> None:
        """Add the gradients of states and head that follow from those of the scores at some positions."""
        gradient_nV = score_gradients.flatten(0, -2)
        if self.hidden is not None:
            self.hidden[rows] = product(gradient_nV, projection.weight_VD).view_as(self.hidden[rows])
        self.add_to_head(projection.hidden[rows].flatten(0, -2), gradient_nV)

    def add_to_head(self, hidden_nD: Tensor, gradient_nV: Tensor) -> None:
        """Add the gradients of the head alone that follow from those of the scores of ``hidden_nD``."""
        vocabulary = gradient_nV.shape[-1]
        if self.weight_VD is not None:
            _add_product(self.weight_VD[:vocabulary], gradient_nV.T, hidden_nD)
        if self.bias_V is not None:
            self.bias_V[:vocabulary] += gradient_nV.sum(0, dtype=self.bias_V.dtype)


def _zeros(tensor: Tensor | None) -> Tensor | None:
    if tensor is None or not tensor.requires_grad:
        return None
    return torch.zeros(tensor.shape, dtype=at_least_float32(tensor.dtype), device=tensor.device)


def product(left: Tensor, right: Tensor) -> Tensor:
    """Compute ``left @ right``, accumulating 16-bit factors in float32 if the device can: fp16 sums would overflow."""
    if left.device.type == "cuda" and left.dtype in (torch.float16, torch.bfloat16):
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float() if left.dtype == torch.float16 else left @ right


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += product(left, right)
