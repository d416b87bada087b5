"""Kernels for ``chunked_sum``: losses on next-token logits at each position, in nats.

q is the student's distribution, p the teacher's, V the size of the vocabulary. Logits may have any leading shape; there
is one value per row. With a temperature T both distributions are softmax(logits / T), and the value is multiplied by
T^2 so that its gradient keeps its size (Hinton, Vinyals and Dean 2015, arXiv 1503.02531).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def cross_entropy(student_logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy ``-log q(target)`` of the student, in nats.

    Args:
        student_logits: The student's logits, (n, V).
        targets: Token ids below V, (n,), int64.

    Returns:
        One value per row, (n,), with gradient to the logits.
    """
    return functional.cross_entropy(student_logits, targets, reduction="none")


def forward_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Forward KL divergence ``T^2 KL(p || q) = T^2 sum_v p_v (log p_v - log q_v)``, in nats.

    Args:
        student_logits: The student's logits, (n, V).
        teacher_logits: The teacher's logits, (n, V).
        temperature: Divides both models' logits.

    Returns:
        One value per row, (n,), with gradient to the student's logits.
    """
    log_q, log_p = log_softmax(student_logits, temperature), log_softmax(teacher_logits, temperature)
    return temperature**2 * functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)


def reverse_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Reverse KL divergence ``T^2 KL(q || p) = T^2 sum_v q_v (log q_v - log p_v)``, in nats.

    Args:
        student_logits: The student's logits, (n, V).
        teacher_logits: The teacher's logits, (n, V).
        temperature: Divides both models' logits.

    Returns:
        One value per row, (n,), with gradient to the student's logits.
    """
    return forward_kl(teacher_logits, student_logits, temperature)


def log_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities ``log softmax(logits / T)`` over the last dimension, T being ``temperature``."""
    return functional.log_softmax(logits if temperature == 1.0 else logits / temperature, dim=-1)
