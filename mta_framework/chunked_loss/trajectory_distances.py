"""FDD's distances between the next-token distributions of two models' key layers, with the gradient written out.

n  positions of a block      K  key layers      V  vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_SHORTEST = 1e-8
"""Differences of log-probabilities that are shorter have no direction (as in ``torch.cosine_similarity``)."""

_LOWEST = -60.0
"""Logits are clamped to this much below the highest, where they have no weight in any sum (1e-26). Intermediate layers
give much lower ones; their exponentials would be denormal numbers, on which a CPU takes twice as long, in the products
with the head too."""

SCRATCH = 4
"""Number of tensors of the size of the logits that ``TrajectoryDistances`` needs as scratch memory."""


@dataclass(frozen=True)
class TrajectoryDistances:
    """FDD's two distances at one position, and the gradient of their weighted sum.

    With q the student's and p the teacher's distribution at the key layers 1..K of a position:

        trajectory = mean over l of KL(p_l || q_l) at logits / T, in nats; not multiplied by T^2
        derivative = mean over l < K of 1 - cos(log q_(l+1) - log q_l, log p_(l+1) - log p_l) at temperature 1

    The gradient is written out rather than left to autograd: the logits of several layers are large, and a few passes
    over them in memory that stays in the cache cost little beside the products with the head. A difference of length 0
    has no direction: its cosine is 0, and so is its gradient.

    Args:
        temperature: Temperature T of the trajectory.
        trajectory: Weight of the trajectory; at 0 it is not computed and its value is 0.
        derivative: Weight of the derivative; at 0 it is not computed and its value is 0. Above 0, K must be
            at least 2.

    Source: the FDD baseline of MTA (arXiv 2605.01374v2) and its authors' code.
    """

    temperature: float
    trajectory: float
    derivative: float

    def __call__(
        self, student_nKV: Tensor, teacher_nKV: Tensor, count_n11: Tensor, scratch_4nKV: Tensor, gradient: bool
    ) -> tuple[Tensor, Tensor]:
        """Compute both distances at some positions, overwriting the logits.

        Args:
            student_nKV: The student's logits; overwritten, with ``gradient`` by the gradient of the weighted sum.
            teacher_nKV: The teacher's logits; overwritten.
            count_n11: How often each position counts in the gradient, in the dtype of the logits.
            scratch_4nKV: Scratch memory, ``SCRATCH`` tensors shaped as the logits; overwritten.
            gradient: Whether to compute the gradient with respect to the student's logits.

        Returns:
            trajectory_n and derivative_n, unweighted, not counted, and without graph.
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
        """The trajectory; leaves its gradient in ``scratch_4nKV[0]``."""
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
        """The derivative; leaves its gradient plus that in ``scratch_4nKV[0]`` in ``student_nKV``."""
        gradient_nKV, q_nKV = scratch_4nKV[0], scratch_4nKV[1]
        both = scratch_4nKV[2:, :, 1:]
        student_step, teacher_step = both.unbind()
        _differences(teacher_nKV, _exponentials(teacher_nKV, 1.0, q_nKV), teacher_step)
        q_sum = _exponentials(student_nKV, 1.0, q_nKV)
        _differences(student_nKV, q_sum, student_step)
        lengths = torch.linalg.vector_norm(both, dim=-1, keepdim=True)
        student_inverse, teacher_inverse = torch.where(lengths > _SHORTEST, 1 / lengths, 0.0).unbind()
        inverse = student_inverse * teacher_inverse
        cosine = torch.mul(student_step, teacher_step, out=teacher_nKV[:, 1:]).sum(-1, keepdim=True) * inverse
        if gradient:
            student_sum, teacher_sum = both.sum(-1, keepdim=True).unbind()
            factor = count_n11 * (self.derivative / cosine.shape[1])
            along, across = factor * cosine * student_inverse**2, -factor * inverse
            total = along * student_sum + across * teacher_sum
            student_step.mul_(along).addcmul_(teacher_step, across)
            gradient_nKV[:, 1:] += student_step
            gradient_nKV[:, :-1] -= student_step
            none = torch.zeros_like(count_n11)
            share = total.diff(dim=1, prepend=none, append=none)
            torch.addcmul(gradient_nKV, q_nKV, share / q_sum, out=student_nKV)
        return 1 - cosine.mean((1, 2))


def _exponentials(logits_nKV: Tensor, temperature: float, out_nKV: Tensor) -> Tensor:
    """Write ``exp(logits / T)`` to ``out_nKV`` and return its sums, (n, K, 1); the logits' maxima must be 0."""
    if temperature == 1.0:
        torch.clamp(logits_nKV, min=_LOWEST, out=out_nKV).exp_()
    else:
        torch.mul(logits_nKV, 1 / temperature, out=out_nKV).clamp_(min=_LOWEST).exp_()
    return out_nKV.sum(-1, keepdim=True)


def _differences(logits_nKV: Tensor, sums_nK1: Tensor, out: Tensor) -> None:
    """Write the log-probabilities of each layer minus those of the layer below to ``out``."""
    shift = sums_nK1.log().diff(dim=1)
    torch.sub(logits_nKV[:, 1:], shift, out=out).sub_(logits_nKV[:, :-1])
