"""The base class of base losses that are one divergence at each supervised token."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from mta_framework.interfaces import BaseLoss
from mta_framework.types import TOKENS, Batch, LossTerm, LossTerms, Progress, States

if TYPE_CHECKING:
    from torch import Tensor


class DivergenceLoss(BaseLoss):
    """A base loss whose one term is a divergence between teacher and student, summed over the supervised tokens.

    With a teacher behind a server the divergence is taken over its likeliest tokens and one class for all others. Set
    ``TAKES_TOP_TOKENS`` to False where ``values`` reads more than that, such as the teacher's entropy.
    """

    TAKES_TOP_TOKENS = True

    @abstractmethod
    def values(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Compute the divergence at each position; a kernel of ``chunked_loss.chunked_sum``.

        Args:
            student_logits: The student's logits, (n, V), in at least float32; they get gradients.
            teacher_logits: The teacher's logits, (n, V); no gradient. With a teacher behind a server both are the
                log-probabilities of k + 1 classes.

        Returns:
            One value per row, (n,).
        """

    def compute(self, student: States, teacher: States | None, batch: Batch, progress: Progress) -> LossTerms:
        """Compute the term, which has the name of the plugin, per supervised token."""
        from mta_framework import chunked_loss

        assert teacher is not None
        return (LossTerm(self.NAME, chunked_loss.divergence_sum(self.values, student, teacher, batch), TOKENS),)
