"""How far two models' next-token distributions go the same way from key layer to key layer, gradient included.

n  positions of a block      K  key layers      V  vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_SHORTEST = 1e-8
"""Below this length a difference of log-probabilities has no direction (as in ``torch.cosine_similarity``)."""

_LOWEST = -60.0
"""Logits this far below the highest have no weight in any sum (1e-26). Intermediate layers give much lower ones, whose
exponentials would be denormal numbers, on which a CPU, in the products with the head too, takes twice as long."""

SCRATCH = 4
"""Tensors of the size of the logits that ``Trajectories`` works in."""


@dataclass(frozen=True)
class Trajectories:
    """FDD's two distances at one position (nats, and 1 - cosine), and the gradient of their weighted sum.

    With student logits z and teacher logits t at the key layers 1..K of a position, p and q their distributions:

        trajectory = mean over l of KL(p_l || q_l) at logits / T; not multiplied by T^2
        derivative = mean over l < K of 1 - cos(log q_(l+1) - log q_l, log p_(l+1) - log p_l) at temperature 1

    The gradient is written out instead of left to autograd: the logits of several layers are large, and so few passes
    over them, in memory that stays in the cache, cost little beside the products with the head. A difference
    that vanishes has no direction: its cosine is 0, its gradient too.

    Args:
        temperature: T.
        trajectory: Weight of the trajectory in the gradient; 0: it isn't computed and its value is 0.
        derivative: Likewise of the derivative; needs K >= 2.
    """

    temperature: float
    trajectory: float
    derivative: float

    def __call__(
        self, student_nKV: Tensor, teacher_nKV: Tensor, count_n11: Tensor, scratch_4nKV: Tensor, gradient: bool
    ) -> tuple[Tensor, Tensor]:
        """The distances at some positions; the memory of the logits is used up.

        Args:
            student_nKV: Logits; overwritten, by the gradient of the weighted sum where one is wanted.
            teacher_nKV: Logits; overwritten.
            count_n11: How often each position counts in the gradient, in their dtype.
            scratch_4nKV: Memory to work in.
            gradient: Whether it is wanted.

        Returns:
            trajectory_n and derivative_n, without their weights and without graph.
        """
        student_nKV -= student_nKV.amax(-1, keepdim=True)
        teacher_nKV -= teacher_nKV.amax(-1, keepdim=True)
        trajectory_n = derivative_n = student_nKV.new_zeros(len(student_nKV))
        if self.trajectory:
            trajectory_n = self._trajectory(student_nKV, teacher_nKV, count_n11, scratch_4nKV, gradient)
        elif gradient:
            scratch_4nKV[0].zero_()
        if self.derivative:
            derivative_n = self._derivative(student_nKV, teacher_nKV, count_n11, scratch_4nKV, gradient)
        elif gradient:
            student_nKV.copy_(scratch_4nKV[0])
        return trajectory_n, derivative_n

    def _trajectory(
        self, student_nKV: Tensor, teacher_nKV: Tensor, count_n11: Tensor, scratch_4nKV: Tensor, gradient: bool
    ) -> Tensor:
        """Leaves its gradient in ``scratch_4nKV[0]``."""
        q_nKV, p_nKV, gap_nKV, _ = scratch_4nKV.unbind()
        q_sum = _exponentials(student_nKV, self.temperature, q_nKV)
        p_sum = _exponentials(teacher_nKV, self.temperature, p_nKV)
        torch.sub(teacher_nKV, student_nKV, out=gap_nKV).mul_(p_nKV)
        divergence_nK1 = gap_nKV.sum(-1, keepdim=True) / (p_sum * self.temperature) - (p_sum / q_sum).log()
        if gradient:
            factor = count_n11 * (self.trajectory / (student_nKV.shape[1] * self.temperature))
            q_nKV.mul_(factor / q_sum).addcmul_(p_nKV, factor / p_sum, value=-1)
        return divergence_nK1.mean((1, 2))

    def _derivative(
        self, student_nKV: Tensor, teacher_nKV: Tensor, count_n11: Tensor, scratch_4nKV: Tensor, gradient: bool
    ) -> Tensor:
        """Leaves both gradients, its own and that in ``scratch_4nKV[0]``, in ``student_nKV``."""
        gradient_nKV, q_nKV = scratch_4nKV[0], scratch_4nKV[1]
        both = scratch_4nKV[2:, :, 1:]
        own, others = both.unbind()
        _differences(teacher_nKV, _exponentials(teacher_nKV, 1.0, q_nKV), others)
        q_sum = _exponentials(student_nKV, 1.0, q_nKV)
        _differences(student_nKV, q_sum, own)
        lengths = torch.linalg.vector_norm(both, dim=-1, keepdim=True)
        own_inverse, other_inverse = torch.where(lengths > _SHORTEST, 1 / lengths, 0.0).unbind()
        inverse = own_inverse * other_inverse
        cosine = torch.mul(own, others, out=teacher_nKV[:, 1:]).sum(-1, keepdim=True) * inverse
        if gradient:
            own_sum, other_sum = both.sum(-1, keepdim=True).unbind()
            factor = count_n11 * (self.derivative / cosine.shape[1])
            along, across = factor * cosine * own_inverse**2, -factor * inverse
            total = along * own_sum + across * other_sum
            own.mul_(along).addcmul_(others, across)
            gradient_nKV[:, 1:] += own
            gradient_nKV[:, :-1] -= own
            none = torch.zeros_like(count_n11)
            share = total.diff(dim=1, prepend=none, append=none)
            torch.addcmul(gradient_nKV, q_nKV, share / q_sum, out=student_nKV)
        return 1 - cosine.mean((1, 2))


def _exponentials(logits_nKV: Tensor, temperature: float, out_nKV: Tensor) -> Tensor:
    """``exp(logits / T)``, and its sums, (n, K, 1); the logits' maxima are 0."""
    if temperature == 1.0:
        torch.clamp(logits_nKV, min=_LOWEST, out=out_nKV).exp_()
    else:
        torch.mul(logits_nKV, 1 / temperature, out=out_nKV).clamp_(min=_LOWEST).exp_()
    return out_nKV.sum(-1, keepdim=True)


def _differences(logits_nKV: Tensor, sums_nK1: Tensor, out: Tensor) -> None:
    """Log-probabilities of each layer less those of the one below."""
    shift = sums_nK1.log().diff(dim=1)
    torch.sub(logits_nKV[:, 1:], shift, out=out).sub_(logits_nKV[:, :-1])
