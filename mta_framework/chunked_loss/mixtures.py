"""Kernels for ``chunked_sum`` that compare distributions with a mixture of both, and total variation.

q is the student's distribution, p the teacher's, V the size of the vocabulary; one value per row. All is computed from
log-probabilities: a token that one model almost rules out costs no precision, and its gradient stays finite.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from mta_framework.chunked_loss.divergences import log_softmax


def skew_forward_kl(student_logits: Tensor, teacher_logits: Tensor, skew: float | Tensor) -> Tensor:
    """Skew forward KL divergence ``KL(p || a p + (1 - a) q)`` with a = ``skew``, in nats; at most ``-log a``.

    Args:
        student_logits: The student's logits, (n, V).
        teacher_logits: The teacher's logits, (n, V).
        skew: Share a of the distribution itself in the mixture, in [0, 1); a tensor (n,) has one per row. 0 gives the
            plain KL divergence.

    Returns:
        One value per row, (n,), with gradient to the student's logits. It is the true divergence: the authors' code
        leaves out the teacher's entropy, which has no gradient.

    Source: DistiLLM (Ko et al., ICML 2024, arXiv 2402.03898), section 3.1.
    """
    log_p, log_q = log_softmax(teacher_logits), log_softmax(student_logits)
    return _kl(log_p, _log_mixture(log_p, log_q, skew))


def skew_reverse_kl(
    student_logits: Tensor, teacher_logits: Tensor, skew: float | Tensor, detach_mixture: bool = False
) -> Tensor:
    """Skew reverse KL divergence ``KL(q || (1 - a) p + a q)`` with a = ``skew``, in nats; at most ``-log a``.

    Args:
        student_logits: The student's logits, (n, V).
        teacher_logits: The teacher's logits, (n, V).
        skew: Share a of the distribution itself in the mixture, in [0, 1); a tensor (n,) has one per row. 0 gives the
            plain KL divergence.
        detach_mixture: Whether to stop the gradient through the q in the mixture (DistiLLM-2); the value stays.

    Returns:
        One value per row, (n,), with gradient to the student's logits.

    Source: DistiLLM (arXiv 2402.03898), section 3.1; detached in the code of DistiLLM-2 (Ko et al., ICML 2025, arXiv
    2503.07067).
    """
    log_p, log_q = log_softmax(teacher_logits), log_softmax(student_logits)
    return _kl(log_q, _log_mixture(log_q.detach() if detach_mixture else log_q, log_p, skew))


def jensen_shannon(student_logits: Tensor, teacher_logits: Tensor, beta: float | Tensor = 0.5) -> Tensor:
    """Generalised Jensen-Shannon divergence ``b KL(p || m) + (1 - b) KL(q || m)`` with m = b p + (1 - b) q, in nats.

    Args:
        student_logits: The student's logits, (n, V).
        teacher_logits: The teacher's logits, (n, V).
        beta: The teacher's share b in the mixture, in (0, 1); a tensor (n,) has one per row.

    Returns:
        One value per row, (n,), with gradient to the student's logits; at most the entropy of (b, 1 - b), which is
        log 2 at 0.5.

    Source: GKD (Agarwal et al., ICLR 2024, arXiv 2306.13649), section 2. Divided by b, or by 1 - b, it tends to
    KL(p || q) as b goes to 0, and to KL(q || p) as b goes to 1.
    """
    log_p, log_q = log_softmax(teacher_logits), log_softmax(student_logits)
    log_m = _log_mixture(log_p, log_q, beta)
    return beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m)


def total_variation(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Total variation distance ``1/2 sum_v |p_v - q_v|``, from 0 to 1 (not in nats).

    Args:
        student_logits: The student's logits, (n, V).
        teacher_logits: The teacher's logits, (n, V).

    Returns:
        One value per row, (n,), with gradient to the student's logits.
    """
    return (log_softmax(teacher_logits).exp() - log_softmax(student_logits).exp()).abs().sum(-1) / 2


def interpolated_cross_entropy(student_logits: Tensor, teacher_logits: Tensor, share: float) -> Tensor:
    """Cross-entropy of the student to ``softmax((1 - t) z_q + t z_p)`` with t = ``share``, in nats.

    Args:
        student_logits: The student's logits z_q, (n, V).
        teacher_logits: The teacher's logits z_p, (n, V).
        share: The teacher's share t in the target, in [0, 1].

    Returns:
        One value per row, (n,), with gradient to the student's logits, but none through the target.

    Source: TAID (Shing et al., ICLR 2025, arXiv 2501.16937).
    """
    target = (1 - share) * student_logits.detach() + share * teacher_logits
    return -(target.softmax(-1) * log_softmax(student_logits)).sum(-1)


def log_alpha_mixture(log_first: Tensor, log_second: Tensor, share: float, alpha: float) -> Tensor:
    """Log of the alpha-mixture of two distributions x and y, ``(s x^c + (1 - s) y^c)^(1/c)`` scaled to a distribution.

    Args:
        log_first: Log-probabilities of x, (n, V).
        log_second: Log-probabilities of y, (n, V).
        share: Share s of x, in (0, 1).
        alpha: With c = (1 - alpha) / 2; at -1 the mixture is arithmetic, at 1 geometric (``x^s y^(1 - s)``), at 3
            harmonic. Close to 1, but not at it, it loses its precision.

    Returns:
        Log-probabilities, (n, V), with gradient to both.

    Source: AMiD (Shin et al., ICLR 2026, arXiv 2510.15982).
    """
    power = (1 - alpha) / 2
    if power == 0:
        return log_softmax(share * log_first + (1 - share) * log_second)
    powers = torch.logaddexp(power * log_first + math.log(share), power * log_second + math.log1p(-share))
    return log_softmax(powers / power)


def _kl(log_first: Tensor, log_second: Tensor) -> Tensor:
    return functional.kl_div(log_second, log_first, reduction="none", log_target=True).sum(-1)


def _log_mixture(log_first: Tensor, log_second: Tensor, share: float | Tensor) -> Tensor:
    """Log of ``share * first + (1 - share) * second``."""
    if isinstance(share, Tensor):
        share = share.unsqueeze(-1)
        return torch.logaddexp(log_first + share.log(), log_second + torch.log1p(-share))
    log_share = math.log(share) if share > 0 else -math.inf
    return torch.logaddexp(log_first + log_share, log_second + math.log1p(-share))
