"""The module that is trained, and its loss terms: as the loss of a step, and as values for the log."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from mta_framework.alignment.objective import Alignment
from mta_framework.alignment.unchanged_inputs import unchanged_inputs
from mta_framework.chunked_loss import chunked_sum, cross_entropy, select_supervised
from mta_framework.errors import RunError, as_plugin_error
from mta_framework.interfaces import BaseLoss, BatchPolicy
from mta_framework.models.state_reader import StateReader
from mta_framework.models.teacher_states import Teacher
from mta_framework.timers import ALIGNMENT, HEALTH, STUDENT, TEACHER, Stopwatch
from mta_framework.training.global_counts import GlobalCounts, Reduce
from mta_framework.training.response_health import ResponseHealth
from mta_framework.training.returned_terms import require_names, require_valid, terms_of
from mta_framework.types import ATTENDED_TOKENS, TOKENS, Batch, LayerPair, LossTerm, LossTerms, Progress, States
from mta_framework.types.log_entries import CROSS_ENTROPY, TEACHER_LOSS


@dataclass(frozen=True)
class TeacherLosses:
    """What a teacher adds to the loss of its texts.

    Args:
        teacher: The frozen teacher; None where neither loss uses one.
        alignment: Alignment loss, or None.
        pairs: Key layers of the alignment; empty without it.
        loss_layers: Pairs of 1-based layers of student and teacher that the base loss reads.
    """

    teacher: Teacher | None
    alignment: Alignment | None = None
    pairs: Sequence[LayerPair] = ()
    loss_layers: Sequence[tuple[int, int]] = ()

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Pairs of layers of student and teacher that are read besides the final states."""
        return [*((pair.student, pair.teacher) for pair in self.pairs), *self.loss_layers]

    @cached_property
    def teacher_layers(self) -> frozenset[int]:
        """The teacher's layers among these."""
        return frozenset(layer for _, layer in self.layers)


class Distiller(nn.Module):
    """Computes base loss and alignment loss of a student with a frozen teacher.

    The student and the projections of the alignment are its only submodules: the teacher belongs to no checkpoint,
    optimiser or gradient reduction.

    Args:
        student: Causal language model, possibly with peft adapters.
        teacher: The frozen teacher; None where neither loss uses one.
        base_loss: Base loss of the run.
        alignment: Alignment loss, or None.
        pairs: Key layers of the alignment; empty without it.
        loss_layers: Pairs of 1-based layers of student and teacher that the base loss reads.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
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
        """Measures the parts of a step; the trainer replaces it by its own."""
        self.health = ResponseHealth()
        """Measures the student's own responses; the trainer replaces it by its own."""
        self._losses = TeacherLosses(teacher, alignment, pairs, loss_layers)
        self._student_reader = StateReader(student, {layer for layer, _ in self._losses.layers})

    def forward(self, batch: Batch, progress: Progress) -> LossTerms:
        """Compute the loss terms of one micro-batch, as sums.

        Every trained parameter takes part in every call, even where nothing is supervised or no text has a span, so
        that gradients can be reduced over processes without a search for unused parameters. The exception is a base
        loss with ``NEEDS_ALIGNMENT``.

        Args:
            batch: Micro-batch on the device of the models.
            progress: Finished steps, for schedules of the base loss.

        Raises:
            RunError: The base loss or the importance estimator failed or broke its contract.
        """
        return self._measured_terms(self._losses, batch, progress)

    def validate(self, batch: Batch, progress: Progress) -> LossTerms:
        """Compute the terms of ``forward`` and the student's cross-entropy, which is comparable between base losses."""
        return self._validation_terms(self._losses, batch, progress)

    @torch.no_grad()
    def span_vectors(self, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """Compute student's and teacher's vector_SD at each key layer; an empty list without alignment."""
        student, teacher = self._states(self._losses, batch)
        if self.alignment is None or teacher is None:
            return []
        return self.alignment.span_vectors(student, teacher, batch)

    def fault(self) -> str | None:
        """Name the plugin that caused a term that is not finite, in a sentence; None if that is unknown."""
        return self.alignment.fault() if self.alignment is not None else None

    def require_gradients(self) -> None:
        """Check after a backward pass that the alignment's projections have gradients.

        Raises:
            RunError: Some have none.
        """
        if self.alignment is not None:
            self.alignment.require_gradients()

    def reshard_teacher(self) -> None:
        """Free what a sharded teacher has gathered for the last batch; nothing is done for any other."""
        if self._losses.teacher is not None:
            self._losses.teacher.reshard()

    def _measured_terms(self, losses: TeacherLosses, batch: Batch, progress: Progress) -> LossTerms:
        terms, student, teacher = self._terms(losses, batch, progress)
        if self.health.is_measuring:
            with self.stopwatch.part(HEALTH):
                self.health.measure(student, teacher, batch)
        return terms

    def _validation_terms(self, losses: TeacherLosses, batch: Batch, progress: Progress) -> LossTerms:
        terms, student, _ = self._terms(losses, batch, progress)
        total = chunked_sum(cross_entropy, select_supervised(student, batch), None, batch.target_N)
        return *terms, LossTerm(CROSS_ENTROPY, total, TOKENS, weight=0.0)

    def _terms(
        self, losses: TeacherLosses, batch: Batch, progress: Progress
    ) -> tuple[LossTerms, States, States | None]:
        student, teacher = self._states(losses, batch)
        label = plugin_label(self)
        with as_plugin_error(label), unchanged_inputs(label, student=student, teacher=teacher, batch=batch):
            terms = terms_of(self.base_loss.compute(student, teacher, batch, progress), label)
        require_names(terms, label, losses.alignment.names if losses.alignment else ())
        if terms or not self.base_loss.NEEDS_ALIGNMENT:
            require_valid(terms, label, student, batch)
        if losses.alignment is not None:
            assert teacher is not None
            with self.stopwatch.part(ALIGNMENT):
                aligned = losses.alignment(student, teacher, batch)
            for name in dict.fromkeys(term.name for term in aligned):
                of_name = tuple(term for term in aligned if term.name == name)
                require_valid(of_name, f"alignment term {name!r}", student, batch)
            terms += aligned
        return terms, student, teacher

    def _states(self, losses: TeacherLosses, batch: Batch) -> tuple[States, States | None]:
        with self.stopwatch.part(TEACHER):
            teacher = None if losses.teacher is None else losses.teacher.states(batch, losses.teacher_layers)
        with self.stopwatch.part(STUDENT):
            return self._student_reader.read(batch.input_ids_BT, batch.attention_mask_BT, batch.attended_A), teacher


def contribution(terms: LossTerms, counts: dict[str, int]) -> Tensor:
    """Compute what a micro-batch adds to the loss of its global batch, however that is cut.

    Args:
        terms: Loss terms of the micro-batch.
        counts: Counts of the global batch by unit; where one is 0, the sum is 0 too.

    Returns:
        Scalar: the sum of ``weight * sum / count`` over the terms, with gradient.
    """
    return torch.stack([term.weight * term.sum / max(counts[term.unit], 1) for term in terms]).sum()


def plugin_label(distiller: Distiller, policy: BatchPolicy | None = None) -> str:
    """Name of the base loss in messages; of its batch policy if that is given."""
    loss = f"base loss {distiller.base_loss.NAME!r}"
    return loss if policy is None else f"batch policy {type(policy).__name__} of {loss}"


_TOTAL = "loss"


class LossMeter:
    """Accumulates loss terms by name: over the micro-batches of a step, then over steps until they are logged.

    Values stay on the device until the end of the step: one transfer per optimiser step. Terms of the same name (one
    per key layer) are averaged by their weights, or evenly where these are all 0, so that the logged ``dsa`` does not
    contain its lambda. ``loss`` is the weighted total. With several teachers, ``loss_NAME`` is the total over the texts
    of one alone, averaged over the steps that have any.
    """

    def __init__(self) -> None:
        self._step: dict[str, Tensor] = {}
        self._totals: dict[str, float] = defaultdict(float)
        self._steps = 0
        self._teacher_steps = Counter[str]()

    def update(self, terms: LossTerms, counts: GlobalCounts) -> None:
        """Add the terms of one micro-batch to the current step.

        Args:
            terms: Loss terms of the micro-batch.
            counts: Counts of the global batch.
        """
        weights: dict[tuple[str, str], list[float]] = defaultdict(list)
        for term in terms:
            weights[term.teacher_name, term.name].append(term.weight)
        for term in terms:
            value = term.sum.detach() / max(counts.all_texts[term.unit], 1)
            total = sum(alike := weights[term.teacher_name, term.name])
            self._add(term.name, value * (term.weight / total if total else 1 / len(alike)))
            self._add(_TOTAL, value * term.weight)
        for name, of_teacher in counts.by_teacher.items():  # on all processes, whichever texts they have
            if of_teacher[ATTENDED_TOKENS]:
                self._add(TEACHER_LOSS + name, torch.zeros_like(terms[0].sum.detach()))
        for term in terms:
            if term.teacher_name:
                count = counts.by_teacher[term.teacher_name][term.unit]
                self._add(TEACHER_LOSS + term.teacher_name, term.sum.detach() / max(count, 1) * term.weight)

    def _add(self, name: str, value: Tensor) -> None:
        self._step[name] = self._step[name] + value if name in self._step else value

    def reduce(self, where: str, reduce: Reduce) -> dict[str, float]:
        """End the current step: sum its terms over processes and check that they are finite.

        Args:
            where: Name of the step in the message.
            reduce: Sums a tensor over all processes.

        Returns:
            The value of each term over the global batch by name, and the weighted total as ``loss``.

        Raises:
            RunError: A term is NaN or infinite; the message names ``where`` and the term.
        """
        names = sorted(self._step)  # processes may have met the terms of several teachers in another order
        reduced = reduce(torch.stack([self._step[name] for name in names])).tolist()
        values = {name: reduced[names.index(name)] for name in self._step}
        faults = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
        if faults:
            of_terms = [fault for fault in faults if not fault.startswith(f"{_TOTAL} ")]
            raise RunError(f"{where}: {', '.join(of_terms or faults)}. The run stops; its last checkpoint is kept.")
        for name, value in values.items():
            self._totals[name] += value
        self._teacher_steps.update(name for name in values if name.startswith(TEACHER_LOSS))
        self._step = {}
        self._steps += 1
        return values

    def state(self) -> dict[str, Any]:
        """Return the sums since the last ``pop`` as JSON, for a checkpoint between two steps."""
        return {"totals": dict(self._totals), "steps": self._steps, "teacher_steps": dict(self._teacher_steps)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the sums that ``state`` returned."""
        self._totals, self._steps = defaultdict(float, state["totals"]), state["steps"]
        self._teacher_steps = Counter(state["teacher_steps"])

    def pop(self) -> dict[str, float]:
        """Return the mean of ``loss`` and of every term over the steps since the last call, and start over."""
        steps = max(self._steps, 1)
        means = {name: total / (self._teacher_steps[name] or steps) for name, total in self._totals.items()}
        self._totals.clear()
        self._teacher_steps.clear()
        self._steps = 0
        return means
