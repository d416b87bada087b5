"""Runs an optimiser step on tensors without values, and finds the moment at which most bytes are alive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from mta_framework.memory_estimate.live_bytes import LiveBytes
from mta_framework.timers import ALIGNMENT, HEALTH, STUDENT, TEACHER, Stopwatch
from mta_framework.training.distiller import Distiller, contribution
from mta_framework.types import Batch, Progress

STUDENT_WEIGHTS, TEACHER_WEIGHTS = "student weights", "teacher weights"
GRADIENTS, OPTIMISER = "gradients", "optimiser"
ACTIVATIONS, TEACHER_STATES, LOSS = "activations", "teacher states", "loss"
PARTS = (STUDENT_WEIGHTS, TEACHER_WEIGHTS, GRADIENTS, OPTIMISER, ACTIVATIONS, TEACHER_STATES, LOSS)
"""The parts of memory, in the order in which they are reported."""

_PHASES = {
    TEACHER: ("forward pass of the teacher", TEACHER_STATES),
    STUDENT: ("forward pass of the student", ACTIVATIONS),
    ALIGNMENT: ("loss", LOSS),
    HEALTH: ("loss", LOSS),
}
"""Part of a step, as the stopwatch names it -> the phase, and the part that its tensors belong to."""


class _PhaseMarks(Stopwatch):
    """Tells from the calls of the stopwatch which phase a step is in."""

    def __init__(self, live: LiveBytes):
        super().__init__()
        self._live = live

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Name the phase of the block."""
        with self._live.phase(*_PHASES[name]):
            yield


def trace_step(
    live: LiveBytes,
    distiller: Distiller,
    optimizers: Sequence[torch.optim.Optimizer],
    batch: Batch,
    micro_batches: int,
    dtype: torch.dtype,
) -> None:
    """Run a training step in which the optimiser has its state; ``live.peak`` is its peak afterwards.

    Args:
        live: Counts bytes, and is active.
        distiller: Module to train, whose weights have no values.
        optimizers: Optimisers of its trained parameters.
        batch: The largest micro-batch, on the device.
        micro_batches: Number of micro-batches of the step.
        dtype: Dtype of the forward pass.
    """
    distiller.stopwatch = _PhaseMarks(live)
    trained = [parameter for parameter in distiller.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.register_post_accumulate_grad_hook(lambda parameter: _assign_gradient(live, parameter))
        with live.phase("", GRADIENTS):
            parameter.grad = torch.zeros_like(parameter)
    _step(live, optimizers)
    live.forget_peak()
    # What comes after the second micro-batch is like it: all gradients are there already.
    for _ in range(min(micro_batches, 2)):
        _accumulate(live, distiller, batch, dtype)
    _step(live, optimizers)


def _assign_gradient(live: LiveBytes, parameter: nn.Parameter) -> None:
    assert parameter.grad is not None
    live.assign(parameter.grad, GRADIENTS)


def _accumulate(live: LiveBytes, distiller: Distiller, batch: Batch, dtype: torch.dtype) -> None:
    """The forward and backward pass of a micro-batch."""
    kind = batch.input_ids_BT.device.type
    with live.phase("loss", LOSS), torch.autocast(kind, dtype, enabled=dtype != torch.float32):
        loss = contribution(distiller(batch, Progress(0, 1, 0.0)), dict(batch.counts))
    with live.phase("backward pass", ACTIVATIONS):
        loss.backward()
        distiller.reshard_teacher()


def _step(live: LiveBytes, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    with live.phase("optimiser step", OPTIMISER):
        for optimizer in optimizers:
            optimizer.step()
        for optimizer in optimizers:
            optimizer.zero_grad()
