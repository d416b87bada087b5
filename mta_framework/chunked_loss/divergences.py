"""Kernels: what is computed of next-token logits at each position, in nats.

p is the teacher's distribution, q the student's, V the vocabulary; any leading shape, one value per row. With a
temperature T both are softmax(logits / T), and the value is multiplied by T^2 so that its gradient keeps its size
(Hinton, Vinyals and Dean 2015).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def cross_entropy(student_logits: Tensor, targets: Tensor) -> Tensor:
    """``-log q(target)``.

    Args:
        student_logits: (n, V).
        targets: (n,), int64, below V.

    Returns:
        (n,), with gradient to the logits.
    """
    return functional.cross_entropy(student_logits, targets, reduction="none")


def forward_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """``T^2 KL(p || q) = T^2 sum_v p_v (log p_v - log q_v)``, with gradient to the student's logits."""
    log_q, log_p = log_softmax(student_logits, temperature), log_softmax(teacher_logits, temperature)
    return temperature**2 * functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)


def reverse_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """``T^2 KL(q || p) = T^2 sum_v q_v (log q_v - log p_v)``, with gradient to the student's logits."""
    return forward_kl(teacher_logits, student_logits, temperature)


def log_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """``log softmax(logits / T)`` over the last dimension."""
    return functional.log_softmax(logits if temperature == 1.0 else logits / temperature, dim=-1)
