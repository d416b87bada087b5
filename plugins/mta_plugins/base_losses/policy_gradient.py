"""On-policy distillation by a policy gradient: the teacher's and the student's log-probability of what was written."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mta_framework import TOKENS, BaseLoss, Batch, LossTerm, LossTerms, PluginParams, Progress, States
from mta_framework.batch_policies import AdaptiveBatches, OnPolicyBatches


class PolicyGradient(BaseLoss):
    """Policy gradient on tokens that the student wrote, with the teacher's log-probability minus its own as advantage.

    With teacher p, student q and a token y that the student drew from b when it wrote it, per supervised token and in
    nats: ``-(q(y) / b(y)) A`` with the advantage ``A = log p(y) - log q(y)`` without gradient, and without discount.
    Its expected gradient is that of KL(q || p) at the position. Where no log b(y) was kept (responses of the data set)
    it is that divergence itself. Where the models' vocabularies differ in size, p and q are over the tokens of both and
    b over the student's.

    Source: On-Policy Distillation (Lu and Thinking Machines Lab, 2025), Tinker's ``importance_sampling`` and verl's
    ``docs/algo/opd.md``. Differences: the ratio is not clipped (verl); the advantage has the present log q(y) (Tinker:
    that at the time of writing).
    """

    NAME = "policy_gradient"
    TITLE = "On-policy PG"
    NEEDS_LOG_PROBS = True

    class Params(PluginParams):
        """Options."""

        batches: Annotated[OnPolicyBatches | AdaptiveBatches, Field(discriminator="policy")] = Field(
            OnPolicyBatches(fraction=1.0), description="Texts that each step is trained on."
        )

    params: Params

    def compute(self, student: States, teacher: States | None, batch: Batch, progress: Progress) -> LossTerms:
        """Compute the term ``policy_gradient`` per supervised token."""
        import torch

        from mta_framework import chunked_loss

        assert teacher is not None
        written_N = batch.log_prob_N
        if written_N is None:
            written_N = torch.full_like(batch.target_N, torch.nan, dtype=torch.float32)
        inputs = chunked_loss.select_supervised(student, batch), chunked_loss.select_supervised(teacher, batch)
        total = chunked_loss.chunked_sum(chunked_loss.sampled_reverse_kl, *inputs, batch.target_N, written_N)
        return (LossTerm(self.NAME, total, TOKENS),)
