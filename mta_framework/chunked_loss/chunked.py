"""Next-token distributions without whole logits: chunk by chunk, the gradient formed in the forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mta_framework.chunked_loss.head_inputs import HeadInputs
from mta_framework.chunked_loss.projection import Gradients, Projection, at_least_float32, logits_of

Kernel = Callable[..., Tensor]
"""``kernel(student_logits, teacher_logits, *data) -> values``; without a teacher ``kernel(student_logits, *data)``."""

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
    """Sum of ``kernel`` over all positions; at no time do more logits exist than those of one chunk.

    The gradient to the student's logits is taken by autograd inside a block of positions, and carried on to states
    and head at once; backward only multiplies. A head that is frozen, or grad mode off, costs no such work.

    Args:
        kernel: Differentiable in its first argument, row by row: its value at a position must not depend on other
            positions. Gets logits of at least float32, (n, V) or (n, K, V), and n rows of each data tensor; returns
            any shape that begins with n, in nats. Autocast is off inside.
        student: hidden_ND or hidden_NKD; gets gradients, in its own dtype, as do the head's weight and bias.
        teacher: The same N; no gradient. Its tensors may be inference tensors. None: the kernel gets no teacher.
        data_N: Anything else the kernel needs of a position, N rows each, e.g. targets. No gradient.
        chunk_size: Positions per chunk; None: as many as fill 64 MiB of float32 logits on the CPU, 256 MiB elsewhere.
        shared_vocabulary: Whether an id means the same token to both models; if not, the kernel gets both vocabularies
            whole, and their sizes may differ.

    Returns:
        Scalar, float32 (float64 for float64 states). With N = 0 it is 0 and gives zero gradients, not None. It can
        be differentiated once; a second backward through the same call is an error.

    Where two shared vocabularies differ in size (padding), both are cut to the smaller one before the kernel; the rows
    beyond it get a zero gradient. Under autocast the products run in its dtype and everything else in float32.

    Raises:
        ValueError: The numbers of positions differ.
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
    """The values of ``kernel`` at all positions, without gradient; in chunks as ``chunked_sum``, which see.

    Args:
        kernel: Returns any shape that begins with n; small ones, since all of them are kept.
        student: hidden_ND or hidden_NKD.
        teacher: The same N. None: the kernel gets no teacher.
        data_N: Anything else the kernel needs of a position.
        chunk_size: Positions per chunk.

    Returns:
        N values as the kernel returned them, in at least float32. N may be 0.

    Raises:
        ValueError: The numbers of positions differ.
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
    readout: HeadInputs
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
        readouts = (student,) if teacher is None else (student, teacher)
        sizes = [len(readout.head.weight_VD) for readout in readouts]
        common = min(sizes) if shared_vocabulary else max(sizes)
        projections = [Projection(readout, common) for readout in readouts]
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
                for part, others in self._blocks(rows, scores):
                    total += self._sum(part, others, gradients)
                if gradients is not None:
                    gradients.add(self.student, rows, scores)
        return total

    def values(self) -> Tensor:
        """What the kernel returns, position by position."""
        found = []
        with torch.autocast(self.student.hidden.device.type, enabled=False):
            # Without positions the kernel is asked all the same, for the shape of what it returns.
            for rows in self._chunks() or [slice(0, 0)]:
                for part, others in self._blocks(rows, self.student.scores(rows)):
                    found.append(self.kernel(logits_of(part, self.student.head), *others))
        return torch.cat(found)

    def _chunks(self) -> list[slice]:
        return [slice(start, start + self.chunk) for start in range(0, len(self.student.hidden), self.chunk)]

    def _blocks(self, rows: slice, scores: Tensor) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """The student's scores of a chunk, block by block, and what else the kernel gets."""
        teacher_scores = None if self.teacher is None else self.teacher.scores(rows)
        for at in range(0, max(len(scores), 1), self.block):
            part = slice(at, at + self.block)
            others = [tensor[rows][part] for tensor in self.data_N]
            if self.teacher is not None and teacher_scores is not None:
                others.insert(0, logits_of(teacher_scores[part], self.teacher.head))
            yield scores[part], others

    def _sum(self, scores: Tensor, others: Sequence[Tensor], gradients: Gradients | None) -> Tensor:
        """The sum over one block; where gradients are wanted the scores are overwritten by theirs."""
        if gradients is None:
            return self.kernel(logits_of(scores, self.student.head), *others).sum()
        with torch.enable_grad():
            leaf = scores.detach().to(at_least_float32(scores.dtype)).requires_grad_()
            value = self.kernel(logits_of(leaf, self.student.head), *others).sum()
            (gradient,) = torch.autograd.grad(value * gradients.scale, leaf)
        scores.copy_(gradient)
        return value.detach()


class _ChunkedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, job: _Job, *tensors: Tensor | None) -> Tensor:
        gradients = Gradients.of(job.readout, job.student)
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
