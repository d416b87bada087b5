"""Supervised fine-tuning."""

from __future__ import annotations

from mta_framework import TOKENS, BaseLoss, Batch, LossTerm, LossTerms, Progress, States


class SFT(BaseLoss):
    """Cross-entropy on the data; no teacher."""

    NAME = "sft"
    NEEDS_TEACHER = False
    NEEDS_SHARED_VOCABULARY = False

    def compute(self, student: States, teacher: States | None, batch: Batch, progress: Progress) -> LossTerms:
        """One term ``sft``: ``-log q(y)`` in nats per supervised token."""
        from mta_framework import vocabulary

        readout = vocabulary.supervised(student, batch)
        total = vocabulary.chunked_sum(vocabulary.cross_entropy, readout, None, batch.target_N)
        return (LossTerm(self.NAME, total, TOKENS),)
