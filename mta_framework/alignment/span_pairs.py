"""Sums over the pairs of spans of a text, strip by strip: memory does not grow with the square of their number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_STRIP = 2**22
"""Pairs that are looked at together, at the most: 16 MiB in float32, or all pairs of a text of 2,048 spans."""


def angle_sum(
    student_SD: Tensor, teacher_SD: Tensor, weight_S: Tensor, texts: Sequence[slice], strip: int = _STRIP
) -> Tensor:
    """The sum of ``w_i w_j (u_i u_j - v_i v_j)^2`` over all ordered pairs i != j of spans of one text.

    The gradient, ``4 w_i sum_j w_j (u_i u_j - v_i v_j) u_j``, is formed on the way: all that is kept for the backward
    pass is as large as ``student_SD``.

    Args:
        student_SD: The directions u; gets gradients.
        teacher_SD: The directions v, of any width; no gradient.
        weight_S: No gradient.
        texts: The rows of each text; rows in none of them have no pairs.
        strip: How many pairs are held at once, unless those of a single span are more.

    Returns:
        Scalar in the dtype of ``student_SD``; 0 that gives a zero gradient where there is no text. It can be
        differentiated once.
    """
    if torch.is_grad_enabled() and student_SD.requires_grad:
        return _AngleSum.apply(student_SD, teacher_SD, weight_S, texts, strip)
    with torch.no_grad():
        return _summed(student_SD, teacher_SD, weight_S, texts, strip, None)


class _AngleSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, student_SD: Tensor, teacher_SD: Tensor, weight_S: Tensor, texts: Sequence[slice], strip: int
    ) -> Tensor:
        gradient_SD = torch.zeros_like(student_SD)
        total = _summed(student_SD, teacher_SD, weight_S, texts, strip, gradient_SD)
        ctx.save_for_backward(gradient_SD)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_SD,) = ctx.saved_tensors
        return gradient_SD * grad_output, None, None, None, None


def _summed(
    student_SD: Tensor,
    teacher_SD: Tensor,
    weight_S: Tensor,
    texts: Sequence[slice],
    strip: int,
    gradient_SD: Tensor | None,
) -> Tensor:
    """The sum; fills ``gradient_SD`` where given."""
    teacher_SD, weight_S = teacher_SD.to(student_SD.dtype), weight_S.to(student_SD.dtype)
    row_S = torch.zeros_like(weight_S)
    weighted_SD = None if gradient_SD is None else student_SD * weight_S[:, None]
    for text in texts:
        rows = max(1, strip // (text.stop - text.start))
        for start in range(text.start, text.stop, rows):
            part = slice(start, min(start + rows, text.stop))
            difference = _differences(student_SD, teacher_SD, text, part)
            if gradient_SD is not None and weighted_SD is not None:
                torch.mm(difference, weighted_SD[text], out=gradient_SD[part])
            torch.mv(difference.square_(), weight_S[text], out=row_S[part])
    if gradient_SD is not None:
        gradient_SD *= 4 * weight_S[:, None]
    return weight_S @ row_S


def _differences(student_SD: Tensor, teacher_SD: Tensor, text: slice, part: slice) -> Tensor:
    """``u_i u_j - v_i v_j`` of some spans i with all spans j of their text; 0 where i = j."""
    difference = student_SD[part] @ student_SD[text].T
    difference.addmm_(teacher_SD[part], teacher_SD[text].T, alpha=-1)
    difference.diagonal(part.start - text.start).zero_()
    return difference
