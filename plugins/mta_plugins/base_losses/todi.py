"""ToDi: forward and reverse KL divergence, mixed for every token of the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mta_framework import PluginParams
from mta_framework.batch_policies import Batches, FixedBatches
from mta_framework.divergence_loss import DivergenceLoss

if TYPE_CHECKING:
    from torch import Tensor


class ToDi(DivergenceLoss):
    """Forward and reverse KL divergence, mixed for each token of the vocabulary by the ratio of its probabilities.

    With teacher p, student q and ``a_v = sigmoid(log p_v - log q_v)`` without gradient, per supervised token and in
    nats: ``sum_v a_v p_v (log p_v - log q_v) + (1 - a_v) q_v (log q_v - log p_v)``. Tokens that the student
    underestimates count by the forward divergence, the others by the reverse one.

    Source: ToDi (Jung et al., EMNLP 2025, arXiv 2505.16297); its authors mix it with cross-entropy on the data.
    """

    NAME = "todi"
    TITLE = "ToDi"

    class Params(PluginParams):
        """Options."""

        batches: Batches = Field(FixedBatches(), description="Texts that each step is trained on.")

    params: Params

    def values(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        from mta_framework.chunked_loss import log_softmax

        log_p, log_q = log_softmax(teacher_logits), log_softmax(student_logits)
        ratio = log_p - log_q
        forward = ratio.detach().sigmoid()
        return ((forward * log_p.exp() - (1 - forward) * log_q.exp()) * ratio).sum(-1)
