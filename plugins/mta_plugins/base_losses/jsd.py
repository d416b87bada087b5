"""Generalised Jensen-Shannon divergence, or total variation, on the supervised tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from mta_framework import PluginParams
from mta_framework.batch_policies import Batches, FixedBatches
from mta_framework.divergence_loss import DivergenceLoss

if TYPE_CHECKING:
    from torch import Tensor


class JSD(DivergenceLoss):
    """Generalised Jensen-Shannon divergence between teacher and student (GKD), or total variation.

    With teacher p, student q and m = b p + (1 - b) q, per supervised token and in nats:
    ``b KL(p || m) + (1 - b) KL(q || m)``; total variation is ``1/2 sum_v |p_v - q_v|``.

    Source: GKD (Agarwal et al., ICLR 2024, arXiv 2306.13649), whose share of student responses is the ``on_policy``
    policy of ``batches``. Means are over the supervised tokens of the global batch, not of each micro-batch.
    """

    NAME = "jsd"
    TITLE = "JSD"

    class Params(PluginParams):
        """Options."""

        divergence: Literal["jensen_shannon", "total_variation"] = Field(
            "jensen_shannon", description="Generalised Jensen-Shannon divergence, or total variation."
        )
        beta: float = Field(
            0.5, gt=0, lt=1, description="The teacher's share b in the mixture; for jensen_shannon only."
        )
        batches: Batches = Field(FixedBatches(), description="Texts that each step is trained on.")

        @model_validator(mode="after")
        def _beta_has_an_effect(self) -> JSD.Params:
            if self.divergence == "total_variation" and self.beta != type(self).model_fields["beta"].default:
                raise ValueError(f"beta has no effect with divergence total_variation (got {self.beta})")
            return self

    params: Params

    def values(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        from mta_framework import chunked_loss

        if self.params.divergence == "total_variation":
            return chunked_loss.total_variation(student_logits, teacher_logits)
        return chunked_loss.jensen_shannon(student_logits, teacher_logits, self.params.beta)
