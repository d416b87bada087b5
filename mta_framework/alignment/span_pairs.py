"""A sum over all pairs of spans of a text, block by block: memory does not grow with the square of their number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_BLOCK_PAIRS = 2**22
"""Most pairs in memory at once: 16 MiB in float32, or all pairs of a text of 2,048 spans."""


def cosine_difference_sum(
    student_SD: Tensor, teacher_SD: Tensor, weight_S: Tensor, texts: Sequence[slice], block_pairs: int = _BLOCK_PAIRS
) -> Tensor:
    """Sum ``w_i w_j (u_i u_j - v_i v_j)^2`` over all ordered pairs i != j of spans of the same text.

    The gradient, ``4 w_i sum_j w_j (u_i u_j - v_i v_j) u_j``, is formed in the forward pass: the backward pass needs
    no more memory than ``student_SD``.

    Args:
        student_SD: The student's unit vectors u; they get gradients.
        teacher_SD: The teacher's unit vectors v of the same spans, of any width; no gradient.
        weight_S: Weights w of the spans; no gradient.
        texts: The rows of each text; rows outside of all texts have no pairs.
        block_pairs: Number of pairs in memory at once; at least those of a single span.

    Returns:
        Scalar in the dtype of ``student_SD``; 0 with a zero gradient where there is no text. It can be differentiated
        once.
    """
    if torch.is_grad_enabled() and student_SD.requires_grad:
        return _CosineDifferenceSum.apply(student_SD, teacher_SD, weight_S, texts, block_pairs)
    with torch.no_grad():
        return _sum(student_SD, teacher_SD, weight_S, texts, block_pairs, None)


class _CosineDifferenceSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, student_SD: Tensor, teacher_SD: Tensor, weight_S: Tensor, texts: Sequence[slice], block_pairs: int
    ) -> Tensor:
        gradient_SD = torch.zeros_like(student_SD)
        total = _sum(student_SD, teacher_SD, weight_S, texts, block_pairs, gradient_SD)
        ctx.save_for_backward(gradient_SD)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_SD,) = ctx.saved_tensors
        return gradient_SD * grad_output, None, None, None, None


def _sum(
    student_SD: Tensor,
    teacher_SD: Tensor,
    weight_S: Tensor,
    texts: Sequence[slice],
    block_pairs: int,
    gradient_SD: Tensor | None,
) -> Tensor:
    """The sum; fills ``gradient_SD`` where given."""
    teacher_SD, weight_S = teacher_SD.to(student_SD.dtype), weight_S.to(student_SD.dtype)
    row_S = torch.zeros_like(weight_S)
    weighted_SD = None if gradient_SD is None else student_SD * weight_S[:, None]
    for text in texts:
        rows = max(1, block_pairs // (text.stop - text.start))
        for start in range(text.start, text.stop, rows):
            block = slice(start, min(start + rows, text.stop))
            difference = _differences(student_SD, teacher_SD, text, block)
            if gradient_SD is not None and weighted_SD is not None:
                torch.mm(difference, weighted_SD[text], out=gradient_SD[block])
            torch.mv(difference.square_(), weight_S[text], out=row_S[block])
    if gradient_SD is not None:
        gradient_SD *= 4 * weight_S[:, None]
    return weight_S @ row_S


def _differences(student_SD: Tensor, teacher_SD: Tensor, text: slice, block: slice) -> Tensor:
    """``u_i u_j - v_i v_j`` of some spans i with all spans j of their text; 0 where i = j."""
    difference = student_SD[block] @ student_SD[text].T
    difference.addmm_(teacher_SD[block], teacher_SD[text].T, alpha=-1)
    difference.diagonal(block.start - text.start).zero_()
    return difference
