"""Adaptive KL: forward and reverse KL divergence, mixed at every position by where student and teacher differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mta_framework import PluginParams
from mta_framework.batch_policies import Batches, FixedBatches
from mta_framework.divergence_loss import DivergenceLoss

if TYPE_CHECKING:
    from torch import Tensor


class AKL(DivergenceLoss):
    """Forward and reverse KL divergence, mixed at each position by the gaps in the head and tail of the teacher.

    The head are the teacher's likeliest tokens with a joint probability of at most ``head_mass``, at least one; the
    tail are all others. With teacher p, student q and the gaps ``g = sum |p_v - q_v|`` over head and tail, without
    gradient, per supervised token and in nats: ``(g_head KL(p || q) + g_tail KL(q || p)) / (g_head + g_tail)``.

    Source: AKL (Wu et al., COLING 2025, arXiv 2404.02657). Means are over the supervised tokens of the global batch,
    not of each micro-batch.
    """

    NAME = "akl"
    TITLE = "AKL"

    class Params(PluginParams):
        """Options."""

        head_mass: float = Field(0.5, gt=0, lt=1, description="Joint probability of the head's tokens, at most.")
        batches: Batches = Field(FixedBatches(), description="Texts that each step is trained on.")

    params: Params

    def values(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        import torch

        from mta_framework.chunked_loss import log_softmax

        log_p, log_q = log_softmax(teacher_logits), log_softmax(student_logits)
        p, q = log_p.exp(), log_q.exp()
        with torch.no_grad():
            likeliest_first, order = p.sort(dim=-1, descending=True)
            is_head = likeliest_first.cumsum(-1) <= self.params.head_mass
            is_head[..., 0] = True
            gap = (likeliest_first - q.gather(-1, order)).abs()
            total = gap.sum(-1).clamp_min(torch.finfo(gap.dtype).tiny)
            share = (gap * is_head).sum(-1) / total
        forward, reverse = (p * (log_p - log_q)).sum(-1), (q * (log_q - log_p)).sum(-1)
        return share * forward + (1 - share) * reverse
