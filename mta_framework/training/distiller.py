"""The module that is trained: student and projections; a batch goes in, loss terms come out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mta_framework.alignment.objective import Alignment
from mta_framework.chunked_loss import chunked_sum, cross_entropy, select_supervised
from mta_framework.errors import RunError, as_plugin_error
from mta_framework.interfaces import BaseLoss
from mta_framework.models.states import StateReader
from mta_framework.timers import ALIGNMENT, STUDENT, TEACHER, Stopwatch
from mta_framework.types import TOKENS, Batch, LayerPair, LossTerm, LossTerms, Progress, States

CROSS_ENTROPY = "cross_entropy"
"""Name of the term that ``validate`` adds."""


class Distiller(nn.Module):
    """Base loss + alignment of one student with one frozen teacher.

    The student and the projections of the alignment are its only submodules: the teacher has no place in checkpoints,
    optimisers or gradient reduction, and is moved to its device by whoever loads it.

    Args:
        student: A causal language model, possibly with peft adapters.
        teacher: A frozen causal language model in its own dtype, or None where nothing uses one.
        base_loss: Bound plugin.
        alignment: MTA's terms, or None.
        pairs: The key layers of the alignment; empty without it.
        loss_layers: Pairs of layers, the student's and the teacher's, that the base loss reads.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        base_loss: BaseLoss,
        alignment: Alignment | None = None,
        pairs: Sequence[LayerPair] = (),
        loss_layers: Sequence[tuple[int, int]] = (),
    ):
        super().__init__()
        self.student = student
        self.alignment = alignment
        self.base_loss = base_loss
        self.stopwatch = Stopwatch()
        """Of the steps; the trainer sets its own."""
        read = [(pair.student, pair.teacher) for pair in pairs] + list(loss_layers)
        self._read_student = StateReader(student, {own for own, _ in read})
        self._read_teacher = StateReader(teacher, {other for _, other in read}) if teacher is not None else None

    def forward(self, batch: Batch, progress: Progress) -> LossTerms:
        """The loss terms of one micro-batch, as sums.

        Every parameter that is trained takes part in every call, even where nothing is supervised or no text has a
        span, so gradients can be reduced over processes without a search for unused ones.
        """
        return self._terms(batch, progress)[0]

    def validate(self, batch: Batch, progress: Progress) -> LossTerms:
        """As ``forward``, and the student's cross-entropy on the data, which can be compared between base losses."""
        terms, student = self._terms(batch, progress)
        total = chunked_sum(cross_entropy, select_supervised(student, batch), None, batch.target_N)
        return *terms, LossTerm(CROSS_ENTROPY, total, TOKENS, weight=0.0)

    @torch.no_grad()
    def span_vectors(self, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """The student's and the teacher's span vectors at each key layer; none without alignment."""
        student, teacher = self._states(batch)
        if self.alignment is None or teacher is None:
            return []
        return self.alignment.span_vectors(student, teacher, batch)

    def fault(self) -> str | None:
        """Which plugin made a term that is not finite, as a sentence, where that is known."""
        return self.alignment.fault() if self.alignment is not None else None

    def _terms(self, batch: Batch, progress: Progress) -> tuple[LossTerms, States]:
        student, teacher = self._states(batch)
        with as_plugin_error(f"base loss {self.base_loss.NAME!r}"):
            terms = tuple(self.base_loss.compute(student, teacher, batch, progress))
        _require_sound(terms, self.base_loss, batch)
        if self.alignment is not None:
            assert teacher is not None
            with self.stopwatch.part(ALIGNMENT):
                terms += self.alignment(student, teacher, batch)
        return terms, student

    def _states(self, batch: Batch) -> tuple[States, States | None]:
        with self.stopwatch.part(TEACHER):
            teacher = self._teacher_states(batch)
        with self.stopwatch.part(STUDENT):
            return self._read_student.read(batch.input_ids_BT, batch.attention_mask_BT), teacher

    def _teacher_states(self, batch: Batch) -> States | None:
        if self._read_teacher is None:
            return None
        batch = batch.teacher or batch
        device = batch.input_ids_BT.device.type
        with torch.inference_mode(), torch.autocast(device, enabled=False):
            return self._read_teacher.read(batch.input_ids_BT, batch.attention_mask_BT)


def _require_sound(terms: LossTerms, base_loss: BaseLoss, batch: Batch) -> None:
    """A base loss may be anyone's code."""
    told = f"base loss {base_loss.NAME!r}"
    if not terms:
        raise RunError(f"{told} must return at least one term (got none)")
    for term in terms:
        if term.sum.dim() != 0:
            raise RunError(f"{told}: the sum of term {term.name!r} must be a scalar (got {list(term.sum.shape)})")
        if term.unit not in batch.counts:
            units = ", ".join(map(repr, batch.counts))
            raise RunError(f"{told}: the unit of term {term.name!r} must be one of {units} (got {term.unit!r})")


def contribution(terms: LossTerms, counts: dict[str, int]) -> Tensor:
    """What a micro-batch adds to the loss of its global batch, whatever the cut.

    Args:
        terms: Sums over the micro-batch.
        counts: Unit -> count over the whole global batch; a count of 0 means that the sum is 0 too.
    """
    return torch.stack([term.weight * term.sum / max(counts[term.unit], 1) for term in terms]).sum()
