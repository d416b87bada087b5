"""Fits the alignment terms that ask for it, on texts of the training set before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn

from mta_framework.alignment.objective import Alignment
from mta_framework.models.state_reader import StateReader
from mta_framework.types import Batch, States


@torch.no_grad()
def fit_terms(
    alignment: Alignment, student: nn.Module, teacher: nn.Module, sample: Callable[[int], Iterable[Batch]]
) -> None:
    """Fit every term with ``num_texts``; nothing is done where no term has any.

    Args:
        alignment: The terms. It is moved to the teacher's device.
        student: Student model. It is moved to the teacher's device, runs in evaluation mode and in its own dtype, and
            is left in the mode that it was in.
        teacher: Frozen teacher model.
        sample: Returns that many texts of the training set, in batches on any device.

    Raises:
        InputError: A term cannot be fitted on these texts.
        RunError: A term or the importance estimator failed.
    """
    device, training = next(teacher.parameters()).device, student.training
    student.to(device).eval()
    alignment.to(device)
    layers = {pair.student for pair in alignment.pairs}, {pair.teacher for pair in alignment.pairs}
    readers = StateReader(student, layers[0]), StateReader(teacher, layers[1])
    try:
        for placed in alignment.terms:
            if placed.term.num_texts:
                alignment.fit(placed, _states(readers, sample(placed.term.num_texts), device))
    finally:
        student.train(training)
        for reader in readers:
            reader.close()


def _states(
    readers: tuple[StateReader, StateReader], batches: Iterable[Batch], device: torch.device
) -> Iterator[tuple[States, States, Batch]]:
    for batch in (batch.to(device) for batch in batches):
        both = batch, batch.teacher or batch
        student, teacher = (
            reader.read(tokens.input_ids_BT, tokens.attention_mask_BT, tokens.attended_A)
            for reader, tokens in zip(readers, both, strict=True)
        )
        yield student, teacher, batch
