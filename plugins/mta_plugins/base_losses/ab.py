"""Alpha-beta divergence on the supervised tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from mta_framework import PluginParams
from mta_framework.batch_policies import Batches, FixedBatches
from mta_framework.divergence_loss import DivergenceLoss

if TYPE_CHECKING:
    from torch import Tensor


class AB(DivergenceLoss):
    """Alpha-beta divergence between teacher and student (ABKD), which contains both KL divergences and more.

    With teacher p, student q, alpha a and beta b, per supervised token:
    ``-1/(a b) sum_v [p_v^a q_v^b - a/(a + b) p_v^(a + b) - b/(a + b) q_v^(a + b)]``, and its limits where a, b or a + b
    is 0. (1, 0) is the forward KL divergence, (0, 1) the reverse one, and (0.5, 0.5) four times the squared
    Hellinger distance.

    Source: ABKD (Wang et al., ICML 2025, arXiv 2505.04560). Where alpha, beta or their sum is 0, the authors' code
    differs from the limit by a factor; means are over the supervised tokens of the global batch, not of each
    micro-batch.
    """

    NAME = "ab"
    TITLE = "ABKD"

    class Params(PluginParams):
        """Options."""

        alpha: float = Field(0.2, ge=-2, le=2, description="Alpha, the power of the teacher's probabilities.")
        beta: float = Field(0.7, ge=-2, le=2, description="Beta, the power of the student's probabilities.")
        batches: Batches = Field(FixedBatches(), description="Texts that each step is trained on.")

        @model_validator(mode="after")
        def _powers_are_limits_or_far_from_them(self) -> AB.Params:
            # The general formula cancels near its limits.
            for name, power in (("alpha", self.alpha), ("beta", self.beta), ("alpha + beta", self.alpha + self.beta)):
                if 0 < abs(power) < 0.01:
                    raise ValueError(f"{name} must be 0, or at least 0.01 away from it (got {power:g})")
            return self

    params: Params

    def values(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        from mta_framework.chunked_loss import alpha_beta

        return alpha_beta(student_logits, teacher_logits, self.params.alpha, self.params.beta)
