"""Fits the alignment terms that ask for it, on texts of the training set before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn

from mta_framework.alignment.objective import Alignment
from mta_framework.models.state_reader import StateReader
from mta_framework.models.teacher_states import Teacher
from mta_framework.types import Batch, States


@torch.no_grad()
def fit_terms(
    alignment: Alignment,
    student: nn.Module,
    teacher: Teacher,
    sample: Callable[[int], Iterable[Batch]],
    device: torch.device | str = "cpu",
) -> None:
    """Fit every term with ``num_texts``; nothing is done where no term has any.

    Args:
        alignment: The terms. It is moved to the device.
        student: Student model. It is moved to the device, runs in evaluation mode and in its own dtype, and is left in
            the mode that it was in.
        teacher: The frozen teacher, on the device.
        sample: Returns that many texts of the training set, in batches on any device.
        device: Device of the teacher.

    Raises:
        InputError: A term cannot be fitted on these texts.
        RunError: A term or the importance estimator failed.
    """
    training = student.training
    student.to(device).eval()
    alignment.to(device)
    reader = StateReader(student, {pair.student for pair in alignment.pairs})
    layers = frozenset(pair.teacher for pair in alignment.pairs)

    def states(batches: Iterable[Batch]) -> Iterator[tuple[States, States, Batch]]:
        for batch in (batch.to(device) for batch in batches):
            yield (
                reader.read(batch.input_ids_BT, batch.attention_mask_BT, batch.attended_A),
                teacher.states(batch, layers),
                batch,
            )

    try:
        for placed in alignment.terms:
            if placed.term.num_texts:
                alignment.fit(placed, states(sample(placed.term.num_texts)))
    finally:
        student.train(training)
        reader.close()
