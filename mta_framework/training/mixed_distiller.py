"""The module that is trained by several teachers, each on its own texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import nn

from mta_framework.alignment.objective import Alignment
from mta_framework.interfaces import BaseLoss
from mta_framework.training.distiller import Distiller, TeacherLosses
from mta_framework.types import Batch, LayerPair, LossTerms, MixedBatch, Progress


class SeveralAlignments(nn.ModuleDict):
    """The alignments of several teachers by their names, for optimiser and checkpoints."""

    pairs: tuple[LayerPair, ...] = ()
    """Key layers that all have in common: none, since each teacher has its own."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms of any of them, under which they are logged."""
        return tuple(dict.fromkeys(name for alignment in self._alignments for name in alignment.names))

    def fault(self) -> str | None:
        """Describe the first unsound weight of an importance estimator in a sentence; None if there was none."""
        faults = (alignment.fault() for alignment in self._alignments)
        return next((fault for fault in faults if fault is not None), None)

    def require_gradients(self) -> None:
        """Check after a backward pass that the parameters of all terms have gradients, be they zeros.

        Raises:
            RunError: Some have none.
        """
        for alignment in self._alignments:
            alignment.require_gradients()

    @property
    def _alignments(self) -> list[Alignment]:
        return [alignment for alignment in self.children() if isinstance(alignment, Alignment)]


class MixedDistiller(Distiller):
    """Computes base loss and alignment loss of a student with several frozen teachers, each on its own texts.

    The student passes once over the texts of each teacher in a micro-batch. The terms are sums over the same texts as
    in any other cut of the global batch, and the trainer divides them by the same counts.

    Args:
        student: Causal language model, possibly with peft adapters.
        base_loss: Base loss of the run.
        by_teacher: What each teacher adds, by its name; their order has no effect.
    """

    def __init__(self, student: nn.Module, base_loss: BaseLoss, by_teacher: Mapping[str, TeacherLosses]):
        # A checkpoint has the optimiser's moments in the order of the parameters.
        by_teacher = dict(sorted(by_teacher.items()))
        pairs = [pair for losses in by_teacher.values() for pair in losses.pairs]
        loss_layers = [layers for losses in by_teacher.values() for layers in losses.loss_layers]
        super().__init__(student, None, base_loss, None, pairs, loss_layers)
        self._by_teacher = by_teacher
        # A module may be named neither as a method of its holder nor with a dot.
        named = ((f"teacher_{name}", losses.alignment) for name, losses in by_teacher.items())
        alignments = {name: alignment for name, alignment in named if alignment is not None}
        self.alignment = SeveralAlignments(alignments) if alignments else None  # type: ignore[assignment]

    def forward(self, batch: MixedBatch, progress: Progress) -> LossTerms:  # type: ignore[override]
        """Compute the loss terms of one micro-batch, as sums over the texts of each teacher (see ``Distiller``)."""
        first, *others = self._of_parts(self._measured_terms, batch, progress)
        absent = [losses.alignment for name, losses in self._by_teacher.items() if name not in batch.parts]
        unused = [one for module in absent if module is not None for one in module.parameters() if one.requires_grad]
        # Every trained parameter gets a gradient in every pass, so that processes need not look for those without.
        nothing = sum((0 * parameter.sum() for parameter in unused), first.sum.new_zeros(()))
        return replace(first, sum=first.sum + nothing), *others

    def validate(self, batch: MixedBatch, progress: Progress) -> LossTerms:  # type: ignore[override]
        """Compute the terms of ``forward`` and the student's cross-entropy."""
        return self._of_parts(self._validation_terms, batch, progress)

    def _of_parts(
        self, compute: Callable[[TeacherLosses, Batch, Progress], LossTerms], batch: MixedBatch, progress: Progress
    ) -> LossTerms:
        return tuple(
            replace(term, teacher_name=name)
            for name, part in batch.parts.items()
            for term in compute(self._by_teacher[name], part, progress)
        )
