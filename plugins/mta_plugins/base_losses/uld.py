"""Universal logit distillation, for a teacher with another tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mta_framework import (
    MATCHED_POSITIONS,
    TOKENS,
    BaseLoss,
    Batch,
    LossTerm,
    LossTerms,
    PluginParams,
    Progress,
    States,
)

if TYPE_CHECKING:
    from torch import Tensor


class ULD(BaseLoss):
    """Distance of the sorted next-token probabilities, for any two vocabularies, plus cross-entropy.

    Both models' probabilities are sorted; the distance is the sum over ranks of ``|p_(i) - q_(i)|``, the shorter
    vocabulary filled up with zeros: twice the Wasserstein-1 distance where moving mass between any two tokens costs 1.
    It is taken at matched positions: those of the response at which the tokens so far cover the same text in both
    tokenizations, so that both models predict how the same text continues. That is once per segment of text at whose
    ends both tokenizations have a boundary, however many tokens either has inside. Where teacher and student share a
    tokenizer, all supervised positions match. The terms are ``uld`` per matched position and ``uld_cross_entropy``
    (``-log q(y)``, in nats) per supervised token of the student.

    Source: Boizard et al., Towards Cross-Tokenizer Distillation, TMLR 2025, arXiv 2402.12030. Difference:
    the paper compares the n-th positions of both responses, whatever text they stand for, and leaves out the rest of
    the longer one.
    """

    NAME = "uld"
    TITLE = "ULD"
    NEEDS_SHARED_VOCABULARY = False

    class Params(PluginParams):
        """Options."""

        distance: float = Field(1.5, gt=0, description="Factor on the distance of the sorted distributions.")
        cross_entropy: float = Field(
            1.0, ge=0, description="Factor on the cross-entropy on the training data; 0: none."
        )

    params: Params

    def compute(self, student: States, teacher: States | None, batch: Batch, progress: Progress) -> LossTerms:
        """Compute the terms ``uld`` and, if its factor is not 0, ``uld_cross_entropy``."""
        from mta_framework import chunked_loss

        assert teacher is not None
        terms = (self._distance(student, teacher, batch),)
        if self.params.cross_entropy == 0:
            return terms
        inputs = chunked_loss.select_supervised(student, batch)
        total = chunked_loss.chunked_sum(chunked_loss.cross_entropy, inputs, None, batch.target_N)
        return *terms, LossTerm(f"{self.NAME}_cross_entropy", total, TOKENS, self.params.cross_entropy)

    def _distance(self, student: States, teacher: States, batch: Batch) -> LossTerm:
        from mta_framework import chunked_loss

        if batch.matched_R is None or batch.matched_teacher_R is None:
            inputs = chunked_loss.select_supervised(student, batch), chunked_loss.select_supervised(teacher, batch)
            unit = TOKENS
        else:
            inputs = (
                chunked_loss.select_positions(student, batch.matched_R),
                chunked_loss.select_positions(teacher, batch.matched_teacher_R),
            )
            unit = MATCHED_POSITIONS
        total = chunked_loss.chunked_sum(_sorted_distance, *inputs, shared_vocabulary=False)
        return LossTerm(self.NAME, total, unit, self.params.distance)


def _sorted_distance(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """L1 distance of the sorted probabilities, (n,), from logits (n, V) and (n, V')."""
    from torch.nn.functional import pad

    ranked = [logits.softmax(-1).sort(-1, descending=True).values for logits in (student_logits, teacher_logits)]
    longest = max(probability.shape[-1] for probability in ranked)
    student_nV, teacher_nV = (pad(probability, (0, longest - probability.shape[-1])) for probability in ranked)
    return (student_nV - teacher_nV).abs().sum(-1)
