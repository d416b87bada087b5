"""Kullback-Leibler divergence on the supervised tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mta_framework import TOKENS, BaseLoss, Batch, BatchPolicy, LossTerm, LossTerms, PluginParams, Progress, States
from mta_framework.batch_policies import Batches, FixedBatches

if TYPE_CHECKING:
    from torch import Tensor


class KL(BaseLoss):
    """KL divergence between teacher and student, forward or reverse, mixed with cross-entropy on the data.

    With teacher p, student q, target y, temperature T and mixing weight a, per supervised token and in nats:
    ``(1 - a) T^2 KL(p_T || q_T) - a log q(y)``; ``reverse`` swaps p and q. One term ``kl`` holds the mixture, because
    both parts are read off the same logits. In responses that the student wrote a is 0: cross-entropy would make it
    surer of whatever it said.
    """

    NAME = "kl"

    class Params(PluginParams):
        """Options."""

        reverse: bool = Field(False, description="KL(student || teacher) instead of KL(teacher || student).")
        temperature: float = Field(1.0, gt=0, description="Divides both models' logits; the KL is multiplied by T^2.")
        cross_entropy: float = Field(
            0.0, ge=0, lt=1, description="Share of cross-entropy in the mixture; none in responses by the student."
        )
        batches: Batches = Field(FixedBatches(), description="What is trained on.")

    params: Params

    def batch_policy(self) -> BatchPolicy | None:
        """That of the option ``batches``."""
        return self.params.batches.create()

    def compute(self, student: States, teacher: States | None, batch: Batch, progress: Progress) -> LossTerms:
        """One term ``kl`` per supervised token; logits are computed once per chunk."""
        from mta_framework import chunked_loss

        assert teacher is not None
        readouts = chunked_loss.supervised(student, batch), chunked_loss.supervised(teacher, batch)
        total = chunked_loss.chunked_sum(self._values, *readouts, batch.target_N, _from_data(batch))
        return (LossTerm(self.NAME, total, TOKENS),)

    def _values(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor, from_data: Tensor) -> Tensor:
        from mta_framework import chunked_loss

        divergence = chunked_loss.reverse_kl if self.params.reverse else chunked_loss.forward_kl
        values = divergence(student_logits, teacher_logits, self.params.temperature)
        if self.params.cross_entropy == 0:
            return values
        share = self.params.cross_entropy * from_data
        return (1 - share) * values + share * chunked_loss.cross_entropy(student_logits, targets)


def _from_data(batch: Batch) -> Tensor:
    """At each supervised position whether the student did not write it."""
    if batch.by_student_B is None:
        return batch.target_N.new_ones(batch.target_N.shape).bool()
    return ~batch.by_student_B[batch.text_N]
