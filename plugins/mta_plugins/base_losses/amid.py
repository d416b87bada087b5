"""AMiD: divergence from an alpha-mixture of teacher and student on the supervised tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from mta_framework import PluginParams
from mta_framework.batch_policies import Batches, FixedBatches
from mta_framework.divergence_loss import DivergenceLoss

if TYPE_CHECKING:
    from torch import Tensor


class AMiD(DivergenceLoss):
    """KL divergence from a mixture of teacher and student that is taken between powers of their probabilities.

    With teacher p, student q, skew s and alpha a, ``mix(x, y)`` is ``(s x^c + (1 - s) y^c)^(1/c)`` with
    c = (1 - a) / 2, scaled to a distribution; at a = 1 it is the geometric mixture ``x^s y^(1 - s)``. Per supervised
    token and in nats: ``forward`` is ``KL(p || mix(p, q))``, ``reverse`` is ``KL(q || mix(q, p))``. At a = -1 it is the
    skew divergence of ``distillm``.

    Source: AMiD (Shin et al., ICLR 2026, arXiv 2510.15982), which takes other divergences from the mixture too.
    """

    NAME = "amid"
    TITLE = "AMiD"

    class Params(PluginParams):
        """Options."""

        divergence: Literal["reverse", "forward"] = Field(
            "reverse", description="Divergence of the student (reverse) or of the teacher (forward) from the mixture."
        )
        alpha: float = Field(
            -3.0, ge=-20, le=20, description="Alpha of the mixture: -1 is arithmetic, 1 geometric, 3 harmonic."
        )
        skew: float = Field(0.1, gt=0, lt=1, description="Share s of the distribution itself in the mixture.")
        batches: Batches = Field(FixedBatches(), description="Texts that each step is trained on.")

        @field_validator("alpha")
        @classmethod
        def _alpha_is_1_or_far_from_it(cls, alpha: float) -> float:
            if 0 < abs(1 - alpha) < 0.01:  # the powers would cancel
                raise ValueError(f"must be 1, or at least 0.01 away from it (got {alpha:g})")
            return alpha

    params: Params

    def values(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        from mta_framework.chunked_loss import log_alpha_mixture, log_softmax

        log_p, log_q = log_softmax(teacher_logits), log_softmax(student_logits)
        itself, other = (log_p, log_q) if self.params.divergence == "forward" else (log_q, log_p)
        mixture = log_alpha_mixture(itself, other, self.params.skew, self.params.alpha)
        return (itself.exp() * (itself - mixture)).sum(-1)
