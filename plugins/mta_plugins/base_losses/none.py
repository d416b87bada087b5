"""No base loss: the student is trained by the alignment alone."""

from __future__ import annotations

from pydantic import Field

from mta_framework import BaseLoss, Batch, LossTerms, PluginParams, Progress, States
from mta_framework.batch_policies import Batches, FixedBatches


class NoBaseLoss(BaseLoss):
    """No loss on the output: the student is trained by the alignment alone.

    What the alignment's key layers do not depend on keeps its weights: blocks above the highest of them, and an output
    embedding that is not tied to the input's. The validation loss is the alignment's.
    """

    NAME = "none"
    TITLE = "No base loss"
    NEEDS_TEACHER = False
    NEEDS_SHARED_VOCABULARY = False
    NEEDS_ALIGNMENT = True

    class Params(PluginParams):
        """Options."""

        batches: Batches = Field(FixedBatches(), description="Texts that each step is trained on.")

    params: Params

    def compute(self, student: States, teacher: States | None, batch: Batch, progress: Progress) -> LossTerms:
        """Return no terms."""
        return ()
