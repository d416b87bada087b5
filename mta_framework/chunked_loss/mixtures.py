"""Kernels that compare a distribution with a mixture of both, or both with it; in nats, one value per row.

p is the teacher's distribution, q the student's, V the vocabulary. Everything is computed from log-probabilities, so
a token that one model all but rules out costs neither precision nor a finite gradient.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from mta_framework.chunked_loss.divergences import log_softmax


def skew_forward_kl(student_logits: Tensor, teacher_logits: Tensor, skew: float | Tensor) -> Tensor:
    """``KL(p || a p + (1 - a) q)`` with a = ``skew``, below ``-log a``; at 0 it is KL(p || q).

    Args:
        student_logits: (n, V).
        teacher_logits: (n, V).
        skew: In [0, 1); a tensor (n,) has one for each row.

    Returns:
        (n,), with gradient to the student's logits. True divergence: the authors' code leaves out the teacher's
        entropy, which has no gradient.

    Source: DistiLLM (Ko et al., ICML 2024, arXiv 2402.03898), section 3.1.
    """
    log_p, log_q = log_softmax(teacher_logits), log_softmax(student_logits)
    return _kl(log_p, _log_mixture(log_p, log_q, skew))


def skew_reverse_kl(
    student_logits: Tensor, teacher_logits: Tensor, skew: float | Tensor, detach_mixture: bool = False
) -> Tensor:
    """``KL(q || (1 - a) p + a q)`` with a = ``skew``, below ``-log a``; at 0 it is KL(q || p).

    Args:
        student_logits: (n, V).
        teacher_logits: (n, V).
        skew: In [0, 1); a tensor (n,) has one for each row.
        detach_mixture: No gradient flows through the q in the mixture (DistiLLM-2). The value is the same.

    Returns:
        (n,), with gradient to the student's logits.

    Source: DistiLLM (arXiv 2402.03898), section 3.1; detached in the code of DistiLLM-2 (Ko et al., ICML 2025, arXiv
    2503.07067).
    """
    log_p, log_q = log_softmax(teacher_logits), log_softmax(student_logits)
    return _kl(log_q, _log_mixture(log_q.detach() if detach_mixture else log_q, log_p, skew))


def jensen_shannon(student_logits: Tensor, teacher_logits: Tensor, beta: float | Tensor = 0.5) -> Tensor:
    """``b KL(p || m) + (1 - b) KL(q || m)`` with b = ``beta`` and m = b p + (1 - b) q.

    Args:
        student_logits: (n, V).
        teacher_logits: (n, V).
        beta: In (0, 1); a tensor (n,) has one for each row.

    Returns:
        (n,), at most the entropy of (b, 1 - b): log 2 at 0.5. With gradient to the student's logits.

    Source: GKD (Agarwal et al., ICLR 2024, arXiv 2306.13649), section 2. Divided by b, or by 1 - b, it tends to
    KL(p || q) as b goes to 0, and to KL(q || p) as b goes to 1.
    """
    log_p, log_q = log_softmax(teacher_logits), log_softmax(student_logits)
    log_m = _log_mixture(log_p, log_q, beta)
    return beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m)


def total_variation(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """``1/2 sum_v |p_v - q_v|``, from 0 to 1 and no nats: one value per row, with gradient to the student's logits."""
    return (log_softmax(teacher_logits).exp() - log_softmax(student_logits).exp()).abs().sum(-1) / 2


def _kl(log_first: Tensor, log_second: Tensor) -> Tensor:
    return functional.kl_div(log_second, log_first, reduction="none", log_target=True).sum(-1)


def _log_mixture(log_first: Tensor, log_second: Tensor, share: float | Tensor) -> Tensor:
    """``log(share * first + (1 - share) * second)``."""
    if isinstance(share, Tensor):
        share = share.unsqueeze(-1)
        return torch.logaddexp(log_first + share.log(), log_second + torch.log1p(-share))
    log_share = math.log(share) if share > 0 else -math.inf
    return torch.logaddexp(log_first + log_share, log_second + math.log1p(-share))
