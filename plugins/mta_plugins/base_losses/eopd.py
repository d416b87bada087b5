"""EOPD: reverse KL divergence, plus the forward one where the teacher is uncertain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mta_framework import PluginParams
from mta_framework.batch_policies import Batches, OnPolicyBatches
from mta_framework.divergence_loss import DivergenceLoss

if TYPE_CHECKING:
    from torch import Tensor


class EOPD(DivergenceLoss):
    """Reverse KL divergence, plus the forward one where the teacher's entropy is high (entropy-aware distillation).

    With teacher p, student q and the entropy H(p), per supervised token and in nats:
    ``KL(q || p) + forward_weight [H(p) >= entropy_threshold] KL(p || q)``. By default every step trains on responses
    that the student writes at that step.

    Source: EOPD (Jin et al., ICML 2026, arXiv 2603.07079) and its code. Differences: that code estimates the reverse
    divergence by the token that was written, with clipped importance ratios, and sums the forward one over the
    teacher's 16 likeliest tokens; here both are sums over the vocabulary. Means are over the supervised tokens of the
    global batch, not of each micro-batch.
    """

    NAME = "eopd"
    TITLE = "EOPD"
    TAKES_TOP_TOKENS = False  # a few tokens leave the teacher's entropy open

    class Params(PluginParams):
        """Options."""

        entropy_threshold: float = Field(
            0.8, ge=0, description="Entropy of the teacher, in nats, from which the forward divergence is added."
        )
        forward_weight: float = Field(1.0, gt=0, description="Factor on the forward divergence where it is added.")
        batches: Batches = Field(OnPolicyBatches(fraction=1.0), description="Texts that each step is trained on.")

    params: Params

    def values(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        from mta_framework.chunked_loss import log_softmax

        log_p, log_q = log_softmax(teacher_logits), log_softmax(student_logits)
        p, difference = log_p.exp(), log_q - log_p
        is_uncertain = -(p * log_p).sum(-1) >= self.params.entropy_threshold
        forward_weight = self.params.forward_weight * is_uncertain
        return ((log_q.exp() - forward_weight.unsqueeze(-1) * p) * difference).sum(-1)
