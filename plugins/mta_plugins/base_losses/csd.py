"""Concrete score distillation: squared differences of log-ratios on the supervised tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mta_framework import PluginParams
from mta_framework.batch_policies import Batches, FixedBatches
from mta_framework.divergence_loss import DivergenceLoss

if TYPE_CHECKING:
    from torch import Tensor


class CSD(DivergenceLoss):
    """Squared differences of the log-ratios of student and teacher, over all pairs of tokens (concrete scores).

    With ``d_v = log q_v - log p_v`` of student q and teacher p, and weights w and w' without gradient, per supervised
    token: ``1/4 sum_uv w_u w'_v (d_u - d_v)^2``. With the student's probabilities as both weights it is half the
    variance of d under the student.

    Source: CSD (arXiv 2509.25837, ICLR 2026). Its authors' code returns another value with the same gradient, and means
    over the supervised tokens of each micro-batch, not of the global batch.
    """

    NAME = "csd"
    TITLE = "CSD"

    class Params(PluginParams):
        """Options."""

        first_weights: Literal["student", "teacher", "uniform"] = Field(
            "student", description="Weights w of the tokens: the student's or teacher's probabilities, or all the same."
        )
        second_weights: Literal["student", "teacher", "uniform"] = Field(
            "student", description="Weights w' of the tokens that each is compared with."
        )
        batches: Batches = Field(FixedBatches(), description="Texts that each step is trained on.")

    params: Params

    def __init__(self, params: Params):
        super().__init__(params)
        # Uniform weights are those of all tokens of the vocabulary, which no class of several tokens has.
        self.TAKES_TOP_TOKENS = "uniform" not in (params.first_weights, params.second_weights)

    def values(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        import torch

        from mta_framework.chunked_loss import log_softmax

        log_p, log_q = log_softmax(teacher_logits), log_softmax(student_logits)
        probabilities = {"student": log_q.detach().exp(), "teacher": log_p.exp()}
        uniform = torch.full_like(log_p, 1 / log_p.shape[-1])
        first, second = (
            probabilities.get(name, uniform) for name in (self.params.first_weights, self.params.second_weights)
        )
        difference = log_q - log_p
        # A shift of the differences changes nothing; a small mean keeps the last term from cancelling the others.
        difference = difference - (second * difference).sum(-1, keepdim=True).detach()
        squares = ((first + second) * difference.square()).sum(-1)
        return squares / 4 - (first * difference).sum(-1) * (second * difference).sum(-1) / 2
