"""Kullback-Leibler divergence on the supervised tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mta_framework import TOKENS, BaseLoss, Batch, LossTerm, LossTerms, PluginParams, Progress, States
from mta_framework.batch_policies import Batches, FixedBatches

if TYPE_CHECKING:
    from torch import Tensor


class KL(BaseLoss):
    """KL divergence between teacher and student, forward or reverse, mixed with cross-entropy on the data.

    With teacher p, student q, target y, temperature T and mixing weight a, per supervised token and in nats:
    ``(1 - a) T^2 KL(p_T || q_T) - a log q(y)``; ``reverse`` swaps p and q. The one term ``kl`` holds the mixture, since
    both parts come from the same logits. In responses that the student wrote a is 0: cross-entropy would make the
    student surer of whatever it wrote.

    Source: Hinton, Vinyals and Dean 2015 (arXiv 1503.02531).
    """

    NAME = "kl"
    TITLE = "KL"
    TAKES_TOP_TOKENS = True

    class Params(PluginParams):
        """Options."""

        reverse: bool = Field(
            False, description="Whether to take KL(student || teacher) instead of KL(teacher || student)."
        )
        temperature: float = Field(
            1.0, gt=0, description="Temperature T that divides both models' logits; the KL is multiplied by T^2."
        )
        cross_entropy: float = Field(
            0.0,
            ge=0,
            lt=1,
            description="Share a of cross-entropy in the mixture; 0 in responses that the student wrote.",
        )
        batches: Batches = Field(FixedBatches(), description="Texts that each step is trained on.")

    params: Params

    def compute(self, student: States, teacher: States | None, batch: Batch, progress: Progress) -> LossTerms:
        """Compute the term ``kl``, in nats per supervised token."""
        from mta_framework import chunked_loss

        assert teacher is not None
        data = batch.target_N, _from_data(batch)
        total = chunked_loss.divergence_sum(self._divergence, student, teacher, batch, *data, finish=self._mixture)
        return (LossTerm(self.NAME, total, TOKENS),)

    def _divergence(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        from mta_framework import chunked_loss

        divergence = chunked_loss.reverse_kl if self.params.reverse else chunked_loss.forward_kl
        return divergence(student_logits, teacher_logits, self.params.temperature)

    def _mixture(self, values: Tensor, student_logits: Tensor, targets: Tensor, from_data: Tensor) -> Tensor:
        from mta_framework import chunked_loss

        if self.params.cross_entropy == 0:
            return values
        share = self.params.cross_entropy * from_data
        return (1 - share) * values + share * chunked_loss.cross_entropy(student_logits, targets)


def _from_data(batch: Batch) -> Tensor:
    """Whether the response of each supervised position was written by somebody other than the student."""
    if batch.by_student_B is None:
        return batch.target_N.new_ones(batch.target_N.shape).bool()
    return ~batch.by_student_B[batch.text_N]
