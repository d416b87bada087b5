"""Kernels for ``chunked_sum``: losses on next-token logits at each position, in nats.

q is the student's distribution, p the teacher's, V the size of the vocabulary. Logits may have any leading shape; there
is one value per row. With a temperature T both distributions are softmax(logits / T), and the value is multiplied by
T^2 so that its gradient keeps its size (Hinton, Vinyals and Dean 2015, arXiv 1503.02531).
"""

from __future__ import annotations

import torch
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


def alpha_beta(student_logits: Tensor, teacher_logits: Tensor, alpha: float, beta: float) -> Tensor:
    """Alpha-beta divergence between teacher and student, which contains both KL divergences.

    With a = ``alpha`` and b = ``beta`` it is
    ``-1/(a b) sum_v [p_v^a q_v^b - a/(a + b) p_v^(a + b) - b/(a + b) q_v^(a + b)]``, or its limit where a, b or a + b
    is 0. Close to a limit, but not at it, it loses its precision.

    Args:
        student_logits: The student's logits, (n, V).
        teacher_logits: The teacher's logits, (n, V).
        alpha: Power of the teacher's probabilities.
        beta: Power of the student's probabilities.

    Returns:
        One value per row, (n,), with gradient to the student's logits.

    Source: ABKD (Wang et al., ICML 2025, arXiv 2505.04560).
    """
    a, b, log_p, log_q = alpha, beta, log_softmax(teacher_logits), log_softmax(student_logits)
    ratio = log_q - log_p
    if a == 0 and b == 0:
        return ratio.square().sum(-1) / 2
    if a == 0:
        values = (b * log_q).exp() * (b * ratio - 1) + (b * log_p).exp()
        return values.sum(-1) / b**2
    if b == 0:
        values = (a * log_p).exp() * (-a * ratio - 1) + (a * log_q).exp()
        return values.sum(-1) / a**2
    if a + b == 0:
        values = a * ratio + (-a * ratio).exp() - 1
        return values.sum(-1) / a**2
    both, sums = (a * log_p + b * log_q).exp(), a + b
    values = both - a / sums * (sums * log_p).exp() - b / sums * (sums * log_q).exp()
    return -values.sum(-1) / (a * b)


def sampled_reverse_kl(student_logits: Tensor, teacher_logits: Tensor, targets: Tensor, written: Tensor) -> Tensor:
    """Policy-gradient estimate of KL(q || p), by the one token that the student wrote, in nats.

    With the token y and the probability b(y) that it was drawn with, ``(q(y) / b(y)) (log q(y) - log p(y))``: its
    gradient passes through the ratio alone. Where b(y) is unknown it is KL(q || p) itself.

    Args:
        student_logits: The student's logits, (n, V).
        teacher_logits: The teacher's logits, (n, V).
        targets: Tokens y, (n,), int64.
        written: ``log b(y)``, (n,); NaN where it is unknown.

    Returns:
        One value per row, (n,), with gradient to the student's logits.
    """
    log_q = log_softmax(student_logits)
    difference = log_q - log_softmax(teacher_logits)
    log_q_y, difference_y = (values.gather(-1, targets[:, None]).squeeze(-1) for values in (log_q, difference))
    is_known = ~written.isnan()
    ratio = (log_q_y - torch.where(is_known, written, log_q_y.detach())).exp()
    return torch.where(is_known, ratio * difference_y.detach(), (log_q.exp() * difference).sum(-1))


def log_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities ``log softmax(logits / T)`` over the last dimension, T being ``temperature``."""
    return functional.log_softmax(logits if temperature == 1.0 else logits / temperature, dim=-1)
