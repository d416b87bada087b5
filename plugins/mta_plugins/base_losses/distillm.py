"""DistiLLM: skewed Kullback-Leibler divergence on the supervised tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mta_framework import PluginParams
from mta_framework.batch_policies import AdaptiveBatches, Batches
from mta_framework.divergence_loss import DivergenceLoss

if TYPE_CHECKING:
    from torch import Tensor


class DistiLLM(DivergenceLoss):
    """Skewed KL divergence, from a mixture of teacher and student, with DistiLLM's share of student responses.

    With teacher p, student q and skew a, per supervised token and in nats: ``reverse`` is
    ``KL(q || (1 - a) p + a q)``, ``forward`` is ``KL(p || a p + (1 - a) q)``.

    Source: DistiLLM (Ko et al., ICML 2024, arXiv 2402.03898); its authors run ``reverse``. Differences from their code:
    means are over the supervised tokens of the global batch, not of each micro-batch; the forward divergence includes
    the teacher's entropy, which has no gradient; the default policy decides once per optimiser step.
    """

    NAME = "distillm"
    TITLE = "DistiLLM"

    class Params(PluginParams):
        """Options."""

        divergence: Literal["reverse", "forward"] = Field(
            "reverse", description="Divergence of the student (reverse) or of the teacher (forward) from the mixture."
        )
        skew: float = Field(0.1, ge=0, lt=1, description="Share a of the distribution itself in the mixture.")
        batches: Batches = Field(AdaptiveBatches(), description="Texts that each step is trained on.")

    params: Params

    def values(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        from mta_framework import chunked_loss

        forward = self.params.divergence == "forward"
        divergence = chunked_loss.skew_forward_kl if forward else chunked_loss.skew_reverse_kl
        return divergence(student_logits, teacher_logits, self.params.skew)
