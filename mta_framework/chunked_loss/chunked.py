"""Sums of a kernel over next-token distributions, chunk by chunk, with the gradient formed in the forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mta_framework.chunked_loss.projection import Gradients, HeadInputs, Projection, at_least_float32, logits_of

Kernel = Callable[..., Tensor]
"""A loss at each position: ``kernel(student_logits, teacher_logits, *data) -> values``; without a teacher
``kernel(student_logits, *data) -> values``."""

_MIB = 2**20
# A chunk is large enough for its matrix products to pay for reading the head again. A block, on which the kernel
# runs, should stay in a core's cache on the CPU (a fifth faster at 800 positions, V = 49152); on an accelerator it
# should be worth its launches.
_CHUNK_BYTES = {"cpu": 64 * _MIB}
_BLOCK_BYTES = {"cpu": 2 * _MIB}
_ACCELERATOR_CHUNK_BYTES = 256 * _MIB
_ACCELERATOR_BLOCK_BYTES = 64 * _MIB


def chunked_sum(
    kernel: Kernel,
    student: HeadInputs,
    teacher: HeadInputs | None,
    *data_N: Tensor,
    chunk_size: int | None = None,
    shared_vocabulary: bool = True,
) -> Tensor:
    """Sum ``kernel`` over all positions, holding the logits of one chunk at a time.

    Autograd computes the gradient with respect to the student's logits inside a block of positions, from which the
    gradients of states and head follow at once; the backward pass only multiplies. A frozen head, or grad mode off,
    saves that work.

    Where two shared vocabularies differ in size (padding), both are cut to the smaller one before the kernel; the rows
    beyond it get a zero gradient. Under autocast the products run in its dtype and everything else in float32.

    Args:
        kernel: Function of logits, differentiable in its first argument, whose value at a position depends on that
            position alone. It gets logits in at least float32, (n, V) or (n, K, V), and n rows of each data tensor,
            with autocast off; it returns any shape that begins with n, in nats.
        student: The student's hidden_ND or hidden_NKD; they get gradients in their own dtype, as do the head's weight
            and bias.
        teacher: The teacher's states at the same N positions; no gradient. They may be inference tensors. None: the
            kernel gets no teacher logits.
        data_N: Further arguments of the kernel with N rows each, e.g. targets; no gradient.
        chunk_size: Positions per chunk; None: as many as fill 64 MiB of float32 logits on the CPU, 256 MiB elsewhere.
        shared_vocabulary: Whether an id means the same token to both models. If not, the kernel gets both vocabularies
            whole, and their sizes may differ.

    Returns:
        Scalar, float32 (float64 for float64 states). With N = 0 it is 0 and gives zero gradients, not None. It can
        be differentiated once; a second backward through the same call is an error.

    Raises:
        ValueError: Student, teacher and data differ in the number of positions.
    """
    _check_lengths(student, teacher, data_N)
    tensors = (student.hidden, student.head.weight_VD, student.head.bias_V)
    job = _Job.of(kernel, student, teacher, data_N, chunk_size, shared_vocabulary)
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        return _ChunkedSum.apply(job, *tensors)
    with torch.no_grad():
        return job.run(None)


@torch.no_grad()
def chunked_values(
    kernel: Kernel,
    student: HeadInputs,
    teacher: HeadInputs | None,
    *data_N: Tensor,
    chunk_size: int | None = None,
) -> Tensor:
    """Compute ``kernel`` at all positions, without gradient and in chunks (see ``chunked_sum``).

    Args:
        kernel: Function of logits as for ``chunked_sum``; its values should be small, since all of them are kept.
        student: The student's hidden_ND or hidden_NKD.
        teacher: The teacher's states at the same N positions; None: the kernel gets no teacher logits.
        data_N: Further arguments of the kernel with N rows each.
        chunk_size: Positions per chunk; None: as for ``chunked_sum``.

    Returns:
        The kernel's values at all N positions, concatenated, in at least float32. N may be 0.

    Raises:
        ValueError: Student, teacher and data differ in the number of positions.
    """
    _check_lengths(student, teacher, data_N)
    return _Job.of(kernel, student, teacher, data_N, chunk_size).values()


def _check_lengths(student: HeadInputs, teacher: HeadInputs | None, data_N: Sequence[Tensor]) -> None:
    lengths = [len(student.hidden), *([len(teacher.hidden)] if teacher else []), *map(len, data_N)]
    if len(set(lengths)) > 1:
        raise ValueError(f"student, teacher and data must have the same number of positions (got {lengths})")


@dataclass(frozen=True)
class _Job:
    """All that one call needs, with the number of positions per chunk and per block."""

    kernel: Kernel
    inputs: HeadInputs
    student: Projection
    teacher: Projection | None
    data_N: Sequence[Tensor]
    chunk: int
    block: int

    @classmethod
    def of(
        cls,
        kernel: Kernel,
        student: HeadInputs,
        teacher: HeadInputs | None,
        data_N: Sequence[Tensor],
        chunk_size: int | None,
        shared_vocabulary: bool = True,
    ) -> _Job:
        models = (student,) if teacher is None else (student, teacher)
        sizes = [len(inputs.head.weight_VD) for inputs in models]
        common = min(sizes) if shared_vocabulary else max(sizes)
        projections = [Projection(inputs, common) for inputs in models]
        kind = student.hidden.device.type
        position_bytes = 4 * common * student.hidden.shape[1:-1].numel()
        chunk = chunk_size or max(1, _CHUNK_BYTES.get(kind, _ACCELERATOR_CHUNK_BYTES) // position_bytes)
        block = max(1, _BLOCK_BYTES.get(kind, _ACCELERATOR_BLOCK_BYTES) // position_bytes)
        return cls(kernel, student, projections[0], projections[1] if teacher else None, data_N, chunk, block)

    def run(self, gradients: Gradients | None) -> Tensor:
        """The sum; fills ``gradients`` where given."""
        hidden = self.student.hidden
        total = torch.zeros((), dtype=at_least_float32(hidden.dtype), device=hidden.device)
        with torch.autocast(hidden.device.type, enabled=False):
            for rows in self._chunks():
                scores = self.student.scores(rows)
                for part, arguments in self._blocks(rows, scores):
                    total += self._sum(part, arguments, gradients)
                if gradients is not None:
                    gradients.add(self.student, rows, scores)
        return total

    def values(self) -> Tensor:
        """The kernel's values, position by position."""
        values = []
        with torch.autocast(self.student.hidden.device.type, enabled=False):
            # Without positions the kernel is called all the same, for the shape of its values.
            for rows in self._chunks() or [slice(0, 0)]:
                for part, arguments in self._blocks(rows, self.student.scores(rows)):
                    values.append(self.kernel(logits_of(part, self.student.head), *arguments))
        return torch.cat(values)

    def _chunks(self) -> list[slice]:
        return [slice(start, start + self.chunk) for start in range(0, len(self.student.hidden), self.chunk)]

    def _blocks(self, rows: slice, scores: Tensor) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """The student's scores of a chunk, block by block, and the kernel's further arguments."""
        teacher_scores = None if self.teacher is None else self.teacher.scores(rows)
        for first in range(0, max(len(scores), 1), self.block):
            part = slice(first, first + self.block)
            arguments = [tensor[rows][part] for tensor in self.data_N]
            if self.teacher is not None and teacher_scores is not None:
                arguments.insert(0, logits_of(teacher_scores[part], self.teacher.head))
            yield scores[part], arguments

    def _sum(self, scores: Tensor, arguments: Sequence[Tensor], gradients: Gradients | None) -> Tensor:
        """The sum over one block; where gradients are wanted the scores are overwritten by theirs."""
        if gradients is None:
            return self.kernel(logits_of(scores, self.student.head), *arguments).sum()
        with torch.enable_grad():
            leaf = scores.detach().to(at_least_float32(scores.dtype)).requires_grad_()
            value = self.kernel(logits_of(leaf, self.student.head), *arguments).sum()
            (gradient,) = torch.autograd.grad(value * gradients.scale, leaf)
        scores.copy_(gradient)
        return value.detach()


class _ChunkedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, job: _Job, *tensors: Tensor | None) -> Tensor:
        gradients = Gradients.of(job.inputs, job.student)
        total = job.run(gradients)
        ctx.save_for_backward(gradients.hidden, gradients.weight_VD, gradients.bias_V)
        ctx.scale = gradients.scale
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in tensors]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        factor = grad_output / ctx.scale
        # In place: a second copy of a gradient as large as the head would cost more than the product itself.
        return None, *(
            None if gradient is None else gradient.mul_(factor).to(dtype)
            for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
