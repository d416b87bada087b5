"""A head at work: logits of some rows, and what their gradient means for states and head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mta_framework.chunked_loss.head_inputs import HeadInputs
from mta_framework.types import Head

_FP16_SCALE = 64.0
"""Gradients of logits go through fp16 multiplied by this: unscaled, those of rare tokens (1e-7) would vanish."""


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """float32, or float64 where that came in."""
    return torch.promote_types(dtype, torch.float32)


class Projection:
    """Logits of a readout, chunk by chunk, over the first ``vocabulary`` tokens; records no gradient.

    float32 states are multiplied in autocast's dtype where autocast is on; other states in their own dtype, since a
    teacher loaded in bf16 must not be squeezed into fp16. So it has to be created where autocast is as the caller
    left it, and used where autocast is off.
    """

    def __init__(self, readout: HeadInputs, vocabulary: int):
        head, hidden = readout.head, readout.hidden.detach()
        kind = hidden.device.type
        autocast = hidden.dtype == torch.float32 and torch.is_autocast_enabled(kind)
        self.dtype = torch.get_autocast_dtype(kind) if autocast else hidden.dtype
        self.hidden = hidden.to(self.dtype)
        self.weight_VD = head.weight_VD.detach()[:vocabulary].to(self.dtype)
        self.bias_V = None if head.bias_V is None else head.bias_V.detach()[:vocabulary].to(self.dtype)
        self.head = head

    def scores(self, rows: slice) -> Tensor:
        """``h W^T + b`` of some positions, in the matmul's dtype: (n, V) or (n, K, V)."""
        return functional.linear(self.hidden[rows], self.weight_VD, self.bias_V)

    def write_scores(self, hidden_nD: Tensor, out_nV: Tensor) -> None:
        """The same of any states in the matmul's dtype, into memory that is there already."""
        if self.bias_V is None:
            torch.mm(hidden_nD, self.weight_VD.T, out=out_nV)
        else:
            torch.addmm(self.bias_V, hidden_nD, self.weight_VD.T, out=out_nV)


def logits_of(scores: Tensor, head: Head) -> Tensor:
    """Logits in at least float32, differentiable: ``cap(scale * scores)``."""
    logits = scores.to(at_least_float32(scores.dtype))
    if head.scale != 1.0:
        logits = logits * head.scale
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


@dataclass
class Gradients:
    """Gradients of a sum to the tensors of a readout, summed up chunk by chunk in at least float32.

    Args:
        hidden: Shaped as the readout's, or None where it is not wanted.
        weight_VD: Over the head's whole vocabulary, or None.
        bias_V: Likewise.
        scale: All three are this many times too large.
    """

    hidden: Tensor | None
    weight_VD: Tensor | None
    bias_V: Tensor | None
    scale: float

    @classmethod
    def of(cls, readout: HeadInputs, projection: Projection) -> Gradients:
        """Zeros for those tensors of the readout that want a gradient."""
        hidden, weight_VD, bias_V = map(_zeros, (readout.hidden, readout.head.weight_VD, readout.head.bias_V))
        return cls(hidden, weight_VD, bias_V, _FP16_SCALE if projection.dtype == torch.float16 else 1.0)

    def add(self, projection: Projection, rows: slice, score_gradients: Tensor) -> None:
        """Carry the gradients of some positions' scores on to states and head."""
        gradient_nV = score_gradients.flatten(0, -2)
        if self.hidden is not None:
            self.hidden[rows] = product(gradient_nV, projection.weight_VD).view_as(self.hidden[rows])
        self.add_to_head(projection.hidden[rows].flatten(0, -2), gradient_nV)

    def add_to_head(self, hidden_nD: Tensor, gradient_nV: Tensor) -> None:
        """Carry the gradients of scores on to the head alone."""
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
    """``left @ right``; of 16-bit factors in float32 where the device can, since fp16 sums would overflow."""
    if left.device.type == "cuda" and left.dtype in (torch.float16, torch.bfloat16):
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float() if left.dtype == torch.float16 else left @ right


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += product(left, right)
