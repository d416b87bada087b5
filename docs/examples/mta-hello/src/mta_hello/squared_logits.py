"""Squared distance of logits: distillation before temperatures were used."""

from __future__ import annotations

from pydantic import Field

from mta_framework import TOKENS, BaseLoss, Batch, LossTerm, LossTerms, PluginParams, Progress, States


class SquaredLogits(BaseLoss):
    """Half the mean squared distance between the centred logits of teacher and student, per supervised token.

    Logits that differ by a constant give the same distribution, so each model's mean logit is subtracted.

    Source: Ba and Caruana, "Do deep nets really need to be deep?", 2014.
    """

    NAME = "squared_logits"

    class Params(PluginParams):
        """Options."""

        cap: float = Field(20.0, gt=0, description="Bound at which centred logits are clamped, above and below.")

    params: Params

    def compute(self, student: States, teacher: States | None, batch: Batch, progress: Progress) -> LossTerms:
        """Compute one term, holding the logits of a few positions at a time."""
        from mta_framework.chunked_loss import chunked_sum, select_supervised

        def centred(logits):
            return (logits - logits.mean(-1, keepdim=True)).clamp(-self.params.cap, self.params.cap)

        def kernel(student_logits, teacher_logits):
            return 0.5 * (centred(student_logits) - centred(teacher_logits)).square().mean(-1)

        assert teacher is not None
        total = chunked_sum(kernel, select_supervised(student, batch), select_supervised(teacher, batch))
        return (LossTerm(self.NAME, total, TOKENS),)
