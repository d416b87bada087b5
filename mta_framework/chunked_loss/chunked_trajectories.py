"""Sums of FDD's distances between two models' key layers over positions, without whole logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mta_framework.chunked_loss.key_layer_states import KeyLayerStates
from mta_framework.chunked_loss.projection import (
    Gradients,
    HeadInputs,
    Projection,
    at_least_float32,
    logits_of,
    product,
)
from mta_framework.chunked_loss.trajectory_distances import SCRATCH, TrajectoryDistances

_MIB = 2**20
# The student's logits wait in memory until the whole chunk has its gradient, and adding to the head's gradient pays
# from some 200 rows on; the teacher's are used up at once and do with fewer. Trajectories need all layers of a position
# together, so a block is as few positions as there can be on the CPU, where its six tensors should stay in the cache.
_STUDENT_BYTES, _ACCELERATOR_STUDENT_BYTES = 80 * _MIB, 256 * _MIB
_TEACHER_BYTES, _ACCELERATOR_TEACHER_BYTES = 40 * _MIB, 256 * _MIB
_BLOCK_BYTES, _ACCELERATOR_BLOCK_BYTES = _MIB // 2, 64 * _MIB


def trajectory_sums(
    student: KeyLayerStates,
    teacher: KeyLayerStates,
    distances: TrajectoryDistances,
    count_N: Tensor | None = None,
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum FDD's two distances over positions, holding the logits of one chunk at a time.

    As in ``chunked_sum`` the gradient is formed in the forward pass. It is formed once, of the weighted total: a second
    gradient of the size of the head would double the memory.

    Args:
        student: States of K layers; they get gradients in their own dtype, as do the head's weight and bias.
        teacher: States of as many layers at as many positions; no gradient. They may be inference tensors.
        distances: The distances and their weights in the total.
        count_N: int64, how often each position counts; None: once.
        chunk_size: Positions per chunk; None: as many as fill 80 MiB of float32 logits on the CPU, 256 MiB elsewhere.

    Returns:
        The weighted total, and, without gradient, the sums of ``trajectory`` (nats) and ``derivative`` (1 - cosine):
        scalars, float32 (float64 for float64 states). Without positions all are 0, and the total gives zero gradients.
        The total can be differentiated once.

    Raises:
        ValueError: Student and teacher differ in the number of positions or layers.
    """
    sizes = [(len(states.row_N), len(states.layers)) for states in (student, teacher)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"student and teacher must have the same numbers of positions and layers (got {sizes})")
    tensors = (student.head.weight_VD, student.head.bias_V, *student.layers)
    count_N = torch.ones_like(student.row_N) if count_N is None else count_N
    job = _Job.of(student, teacher, distances, count_N, chunk_size)
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        trajectory, derivative, total = _TrajectorySums.apply(job, *tensors)
    else:
        with torch.no_grad():
            trajectory, derivative, total = job.run(None, None)
    return total, trajectory, derivative


@dataclass(frozen=True)
class _Job:
    """All that one call needs, with the number of positions per chunk, teacher's chunk and block."""

    states: tuple[KeyLayerStates, KeyLayerStates]
    projections: tuple[Projection, Projection]
    distances: TrajectoryDistances
    count_N: Tensor
    sizes: tuple[int, int, int]

    @classmethod
    def of(
        cls,
        student: KeyLayerStates,
        teacher: KeyLayerStates,
        distances: TrajectoryDistances,
        count_N: Tensor,
        chunk_size: int | None,
    ) -> _Job:
        vocabulary = min(len(states.head.weight_VD) for states in (student, teacher))
        inputs = [HeadInputs(states.layers[0][:0], states.head) for states in (student, teacher)]
        projections = Projection(inputs[0], vocabulary), Projection(inputs[1], vocabulary)
        budgets = [_STUDENT_BYTES, _TEACHER_BYTES, _BLOCK_BYTES]
        if student.row_N.device.type != "cpu":
            budgets = [_ACCELERATOR_STUDENT_BYTES, _ACCELERATOR_TEACHER_BYTES, _ACCELERATOR_BLOCK_BYTES]
        chunk, part, block = (max(1, budget // (4 * vocabulary * len(student.layers))) for budget in budgets)
        chunk = chunk_size or chunk
        count_N = count_N.to(at_least_float32(student.layers[0].dtype))
        return cls((student, teacher), projections, distances, count_N, (chunk, min(part, chunk), min(block, chunk)))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of values and gradients."""
        return at_least_float32(self.states[0].layers[0].dtype)

    def run(self, gradients: Gradients | None, layer_gradients: Sequence[Tensor | None] | None) -> Sequence[Tensor]:
        """Trajectory, derivative and weighted total; fills the gradients where given."""
        student, (projection, _) = self.states[0], self.projections
        device, positions, layers = student.row_N.device, len(student.row_N), len(student.layers)
        vocabulary = len(projection.weight_VD)
        distances: list[tuple[Tensor, Tensor]] = []
        chunk, part, block = (min(size, max(positions, 1)) for size in self.sizes)
        student_scores = torch.empty(chunk * layers, vocabulary, dtype=projection.dtype, device=device)
        teacher_scores = torch.empty(part * layers, vocabulary, dtype=self.projections[1].dtype, device=device)
        scratch = torch.empty(SCRATCH, block, layers, vocabulary, dtype=self.dtype, device=device)
        with torch.autocast(device.type, enabled=False):
            for rows in _slices(0, positions, chunk):
                hidden_nD = student.stacked(rows, projection.dtype).flatten(0, 1)
                scores_nV = student_scores[: len(hidden_nD)]
                projection.write_scores(hidden_nD, scores_nV)
                scores_nKV = scores_nV.view(-1, layers, vocabulary)
                for student_nKV, teacher_nKV, count_n in self._blocks(rows, scores_nKV, teacher_scores):
                    distances.append(self._compare(student_nKV, teacher_nKV, count_n, scratch, gradients))
                if gradients is not None and layer_gradients is not None:
                    self._backpropagate(student.row_N[rows], hidden_nD, scores_nV, gradients, layer_gradients)
        none = self.count_N[:0]
        trajectory, derivative = (
            torch.dot(torch.cat(values), self.count_N) for values in zip((none, none), *distances, strict=True)
        )
        return trajectory, derivative, self.distances.trajectory * trajectory + self.distances.derivative * derivative

    def _blocks(
        self, rows: slice, student_nKV: Tensor, teacher_scores: Tensor
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Student's and teacher's scores of a few positions at a time, and how often these count."""
        _, part, block = self.sizes
        teacher, projection = self.states[1], self.projections[1]
        for inner in _slices(rows.start, rows.stop, part):
            hidden_nD = teacher.stacked(inner, projection.dtype).flatten(0, 1)
            projection.write_scores(hidden_nD, teacher_scores[: len(hidden_nD)])
            teacher_nKV = teacher_scores[: len(hidden_nD)].view(-1, *student_nKV.shape[1:])
            inner_nKV = student_nKV[inner.start - rows.start : inner.stop - rows.start]
            for few in _slices(0, len(teacher_nKV), block):
                yield inner_nKV[few], teacher_nKV[few], self.count_N[inner][few]

    def _compare(
        self,
        student_scores: Tensor,
        teacher_scores: Tensor,
        count_n: Tensor,
        scratch: Tensor,
        gradients: Gradients | None,
    ) -> tuple[Tensor, Tensor]:
        """Both distances in a block; where gradients are wanted the student's scores are overwritten by theirs."""
        head = self.states[0].head
        student_nKV = logits_of(student_scores, head).to(scratch.dtype)
        teacher_nKV = logits_of(teacher_scores, self.states[1].head).to(scratch.dtype)
        slope = None if head.softcap is None else 1 - (student_nKV / head.softcap).square()
        wanted = gradients is not None
        memory = scratch[:, : len(student_scores)]
        values = self.distances(student_nKV, teacher_nKV, count_n[:, None, None], memory, wanted)
        if gradients is not None:
            if slope is not None:
                student_nKV *= slope
            if (factor := head.scale * gradients.scale) != 1.0:
                student_nKV *= factor
            if student_nKV.data_ptr() != student_scores.data_ptr():
                student_scores.copy_(student_nKV)
        return values

    def _backpropagate(
        self,
        row_n: Tensor,
        hidden_nD: Tensor,
        gradient_nV: Tensor,
        gradients: Gradients,
        layer_gradients: Sequence[Tensor | None],
    ) -> None:
        """From the gradients of a chunk's scores to those of states and head."""
        if any(gradient is not None for gradient in layer_gradients):
            hidden_gradient = product(gradient_nV, self.projections[0].weight_VD)
            for gradient, of_layer in zip(
                layer_gradients, hidden_gradient.view(len(row_n), len(layer_gradients), -1).unbind(1), strict=True
            ):
                if gradient is not None:
                    gradient.index_copy_(0, row_n, of_layer.to(gradient.dtype))
        gradients.add_to_head(hidden_nD, gradient_nV)


class _TrajectorySums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, job: _Job, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        layers = tensors[2:]
        gradients = Gradients.of(
            HeadInputs(job.states[0].layers[0][:0].detach(), job.states[0].head), job.projections[0]
        )
        layer_gradients = [
            torch.zeros_like(layer, dtype=job.dtype) if layer is not None and layer.requires_grad else None
            for layer in layers
        ]
        sums = job.run(gradients, layer_gradients)
        ctx.save_for_backward(gradients.weight_VD, gradients.bias_V, *layer_gradients)
        ctx.scale = gradients.scale
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in tensors]
        trajectory, derivative, total = sums
        ctx.mark_non_differentiable(trajectory, derivative)
        return trajectory, derivative, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        factor = outer[-1] / ctx.scale
        return None, *(
            None if gradient is None else gradient.mul_(factor).to(dtype)
            for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )


def _slices(start: int, stop: int, size: int) -> Iterator[slice]:
    return (slice(first, min(first + size, stop)) for first in range(start, stop, size))
