"""TAID: a target between student and teacher that moves to the teacher during training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, JsonValue, model_validator

from mta_framework import Batch, LossTerms, PluginParams, Progress, States
from mta_framework.batch_policies import Batches, FixedBatches
from mta_framework.divergence_loss import DivergenceLoss

if TYPE_CHECKING:
    from torch import Tensor


_LARGEST_EXPONENT = 700.0
"""Largest exponent whose power is taken: e to it is close to the largest float64."""


class TAID(DivergenceLoss):
    """Cross-entropy to a target between student and teacher that moves to the teacher as training goes on (TAID).

    With logits z_q of the student and z_p of the teacher, the target is ``softmax((1 - t) z_q + t z_p)`` without
    gradient. t rises from ``start`` to ``end``: after each step by ``rate sigmoid(m) (1 - t)``, where m is the moving
    average of the loss's relative decrease, and at least linearly over the steps.

    Source: TAID (Shing et al., ICLR 2025, arXiv 2501.16937) and its code, whose loss is the cross-entropy too: it has
    the gradient of the KL divergence, and t depends on its value. Here the value is the mean over the supervised tokens
    of the global batch, not of one process's micro-batch.
    """

    NAME = "taid"
    TITLE = "TAID"

    class Params(PluginParams):
        """Options."""

        start: float = Field(0.4, ge=0, lt=1, description="Share t of the teacher in the target at the first step.")
        end: float = Field(1.0, gt=0, le=1, description="Share t of the teacher in the target at the end.")
        rate: float = Field(5e-4, ge=0, le=1, description="Size of the steps of t beyond the linear rise.")
        momentum: float = Field(0.99, ge=0, lt=1, description="Momentum of the loss's relative decrease.")
        batches: Batches = Field(FixedBatches(), description="Texts that each step is trained on.")

        @model_validator(mode="after")
        def _start_is_below_end(self) -> TAID.Params:
            if self.start > self.end:
                raise ValueError(f"start must be at most end (got {self.start:g} and {self.end:g})")
            return self

    params: Params

    def __init__(self, params: Params):
        super().__init__(params)
        self._share = self._linear = params.start
        self._decrease = 0.0
        self._previous: float | None = None

    def compute(self, student: States, teacher: States | None, batch: Batch, progress: Progress) -> LossTerms:
        """Compute the term ``taid``, in nats per supervised token, for the present target."""
        start, end = self.params.start, self.params.end
        self._linear = start + (end - start) * (progress.step / progress.total_steps)
        return super().compute(student, teacher, batch, progress)

    def observe(self, values: Mapping[str, float]) -> None:
        """Move the target, given the loss of the step."""
        loss, params = values[self.NAME], self.params
        if self._previous is not None:
            relative = (self._previous - loss) / (self._previous + 1e-15)
            self._decrease = params.momentum * self._decrease + (1 - params.momentum) * relative
            step = params.rate * (1 - self._share) / (1 + math.exp(min(-self._decrease, _LARGEST_EXPONENT)))
            self._share = min(params.end, max(self._linear, self._share + step))
        self._previous = loss

    def state(self) -> JsonValue:
        """The target's share of the teacher, and what its next step depends on."""
        return {"share": self._share, "decrease": self._decrease, "previous": self._previous}

    def restore(self, state: Any) -> None:
        """Continue with the target of a checkpoint."""
        self._share, self._decrease, self._previous = state["share"], state["decrease"], state["previous"]

    def values(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        from mta_framework.chunked_loss import interpolated_cross_entropy

        return interpolated_cross_entropy(student_logits, teacher_logits, self._share)
