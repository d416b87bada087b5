"""Supervised fine-tuning."""

from __future__ import annotations

from mta_framework import TOKENS, BaseLoss, Batch, LossTerm, LossTerms, Progress, States


class SFT(BaseLoss):
    """Cross-entropy on the training data, without a teacher."""

    NAME = "sft"
    TITLE = "SFT"
    NEEDS_TEACHER = False
    NEEDS_SHARED_VOCABULARY = False

    def compute(self, student: States, teacher: States | None, batch: Batch, progress: Progress) -> LossTerms:
        """Compute the term ``sft``: ``-log q(y)`` of the student, in nats per supervised token."""
        from mta_framework import chunked_loss

        inputs = chunked_loss.select_supervised(student, batch)
        total = chunked_loss.chunked_sum(chunked_loss.cross_entropy, inputs, None, batch.target_N)
        return (LossTerm(self.NAME, total, TOKENS),)
