"""DistiLLM-2: skewed divergences on pairs of a teacher and a student response."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field, JsonValue, model_validator

from mta_framework import (
    TEXTS_BY_OTHERS,
    TEXTS_BY_STUDENT,
    BaseLoss,
    Batch,
    LossTerm,
    LossTerms,
    PluginParams,
    Progress,
    Responder,
    States,
)
from mta_framework.batch_policies import PairedBatches

if TYPE_CHECKING:
    from torch import Tensor

    from mta_framework.chunked_loss import HeadInputs

_LEAST_SKEW = 0.01
_EPSILON = 1e-5


class DistiLLM2(BaseLoss):
    """Skew forward KL on teacher responses plus skew reverse KL on student responses (DistiLLM-2).

    With teacher p, student q and skew a, in nats per token of a response: ``KL(p || a p + (1 - a) q)`` where the
    teacher wrote it, ``KL(q || (1 - a) p + a q')`` where the student did; no gradient flows through q'. Each is a mean
    over the response's tokens, then over responses: with as many of both, the loss is the mean over pairs of their sum.
    Responses of the data set (validation) count as the teacher's.

    Curriculum: a response's lead is ``exp(mean log p) - exp(mean log q)``, of the teacher in its responses, and the
    other way round in the student's; means are over its tokens. The anchor of either kind is the mean lead over the
    first ``anchor_steps`` steps that have such a response; from then on the skew of a response is ``1 - (1 - skew) *
    anchor / (lead + 1e-5)``, at least 0.01 and at most ``skew``.

    Source: DistiLLM-2 (Ko et al., ICML 2025, arXiv 2503.07067), and its authors' code. Differences from that code:
    means are over the responses of the global batch, not of each micro-batch; the anchors are means over a number of
    optimiser steps of all processes, not over whatever was logged first.
    """

    NAME = "distillm2"
    TITLE = "DistiLLM-2"

    class Params(PluginParams):
        """Options."""

        skew: float = Field(
            0.1,
            ge=0,
            lt=1,
            description="Share a of the distribution itself in the mixture; the highest one with curriculum.",
        )
        curriculum: bool = Field(
            True, description="Whether the skew falls, down to 0.01, for responses whose writer has a small lead."
        )
        anchor_steps: int = Field(
            10, ge=1, description="Number of first steps whose mean lead is the anchor of the curriculum."
        )
        gradual_beta: float | None = Field(
            None,
            gt=0,
            le=1,
            description="Share of training over which the weight of the student's term grows from 1 to 1.5, and that "
            "of the teacher's falls from 1 to 0.5 (authors' code: 0.5); null: both stay 1.",
        )
        batches: PairedBatches = Field(PairedBatches(), description="When and how pairs of responses are written.")

        @model_validator(mode="after")
        def _curriculum_and_options_fit(self) -> DistiLLM2.Params:
            if not self.curriculum and self.anchor_steps != type(self).model_fields["anchor_steps"].default:
                raise ValueError(f"anchor_steps has no effect where curriculum is false (got {self.anchor_steps})")
            if self.curriculum and self.skew <= _LEAST_SKEW:
                raise ValueError(f"curriculum must be false where skew is at most {_LEAST_SKEW} (got skew {self.skew})")
            return self

    params: Params

    def __init__(self, params: Params):
        super().__init__(params)
        self._leads = _Leads()

    def compute(self, student: States, teacher: States | None, batch: Batch, progress: Progress) -> LossTerms:
        """Compute the terms ``distillm2_teacher`` and ``distillm2_student``, in nats per response of that kind.

        With the curriculum there are also ``teacher_lead`` and ``student_lead``, of weight 0 and without gradient.
        """
        assert teacher is not None
        grown = self._growth(progress)
        return (
            *self._terms("teacher", _responses(batch, by_student=False), student, teacher, 1 - grown),
            *self._terms("student", _responses(batch, by_student=True), student, teacher, 1 + grown),
        )

    def _growth(self, progress: Progress) -> float:
        """What is added to the weight of the student's term and taken from the teacher's."""
        share = self.params.gradual_beta
        if share is None:
            return 0.0
        return min(0.5, 0.5 * progress.step / max(progress.total_steps, 1) / share)

    def observe(self, values: Mapping[str, float]) -> None:
        """Collect the leads for the anchors; a lead of exactly 0 means that the step had no such response."""
        for writer, leads in self._leads:
            lead = values.get(f"{writer}_lead", 0.0)
            if lead != 0 and len(leads) < self.params.anchor_steps:
                leads.append(lead)

    def state(self) -> JsonValue:
        """The leads that were collected so far."""
        dumped: JsonValue = self._leads.model_dump(mode="json")
        return dumped

    def restore(self, state: JsonValue) -> None:
        """Restore the leads that ``state`` returned."""
        self._leads = _Leads.model_validate(state)

    def _terms(self, writer: Responder, batch: Batch, student: States, teacher: States, weight: float) -> LossTerms:
        """The terms of one writer's responses; ``batch`` supervises these alone."""
        import torch

        from mta_framework import chunked_loss

        unit = TEXTS_BY_STUDENT if writer == "student" else TEXTS_BY_OTHERS
        inputs = chunked_loss.select_supervised(student, batch), chunked_loss.select_supervised(teacher, batch)
        share_N = _shares(batch)
        skew_N = torch.full_like(share_N, self.params.skew)
        leads: LossTerms = ()
        if self.params.curriculum:
            lead_B = _advantages(batch, *inputs, share_N) * (-1 if writer == "student" else 1)
            skew_N = self._skew(writer, lead_B)[batch.text_N]
            leads = (LossTerm(f"{writer}_lead", lead_B.sum(), unit, 0.0),)
        kernel = _on_student_responses if writer == "student" else _on_teacher_responses
        total = chunked_loss.chunked_sum(kernel, *inputs, skew_N, share_N)
        return LossTerm(f"{self.NAME}_{writer}", total, unit, weight), *leads

    def _skew(self, writer: Responder, lead_B: Tensor) -> Tensor:
        highest, leads = self.params.skew, getattr(self._leads, writer)
        if len(leads) < self.params.anchor_steps:
            return lead_B.new_full(lead_B.shape, highest)
        anchor = sum(leads) / len(leads)
        return (1 - (1 - highest) * anchor / (lead_B + _EPSILON)).clamp(_LEAST_SKEW, highest)


class _Leads(BaseModel):
    """Mean lead of each step's global batch, until there are enough for the anchors."""

    teacher: list[float] = []
    student: list[float] = []


def _responses(batch: Batch, by_student: bool) -> Batch:
    """The batch with only the student's responses supervised, or only the others."""
    row_K = batch.row_by_student if by_student else batch.row_by_others
    return replace(batch, position_N=batch.position_N[row_K], target_N=batch.target_N[row_K])


def _shares(batch: Batch) -> Tensor:
    """Weight of each supervised position in the mean of its response."""
    import torch

    count_N = torch.ones(batch.text_N.shape, device=batch.text_N.device)
    return 1 / count_N.new_zeros(len(batch.input_ids_BT)).index_add(0, batch.text_N, count_N)[batch.text_N]


def _advantages(batch: Batch, student: HeadInputs, teacher: HeadInputs, share_N: Tensor) -> Tensor:
    """``exp(mean log p) - exp(mean log q)`` of each text, 0 where nothing is supervised; no gradient."""
    from mta_framework import chunked_loss

    log_N2 = chunked_loss.chunked_values(_log_probabilities, student, teacher, batch.target_N) * share_N[:, None]
    log_B2 = log_N2.new_zeros(len(batch.input_ids_BT), 2).index_add(0, batch.text_N, log_N2)
    return log_B2[:, 0].exp() - log_B2[:, 1].exp()


def _log_probabilities(student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probabilities of each target by the teacher and by the student, (n, 2)."""
    import torch

    from mta_framework import chunked_loss

    return -torch.stack(
        [chunked_loss.cross_entropy(logits, targets) for logits in (teacher_logits, student_logits)], -1
    )


def _on_teacher_responses(student_logits: Tensor, teacher_logits: Tensor, skew: Tensor, share: Tensor) -> Tensor:
    from mta_framework import chunked_loss

    return share * chunked_loss.skew_forward_kl(student_logits, teacher_logits, skew)


def _on_student_responses(student_logits: Tensor, teacher_logits: Tensor, skew: Tensor, share: Tensor) -> Tensor:
    from mta_framework import chunked_loss

    return share * chunked_loss.skew_reverse_kl(student_logits, teacher_logits, skew, detach_mixture=True)
