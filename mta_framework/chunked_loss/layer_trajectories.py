"""Reads intermediate layers out as next-token distributions and compares them, without whole logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mta_framework.chunked_loss.head_inputs import HeadInputs
from mta_framework.chunked_loss.projection import Gradients, Projection, at_least_float32, logits_of, product
from mta_framework.chunked_loss.trajectories import SCRATCH, Trajectories
from mta_framework.errors import RunError
from mta_framework.types import Batch, Head, States

_MIB = 2**20
# The student's logits wait in memory until the whole chunk has its gradient, and adding to the head's gradient pays
# from some 200 rows on; the teacher's are used up at once and do with fewer. Trajectories need all layers of a position
# together, so a block is as few positions as there can be on the CPU, where its six tensors should stay in the cache.
_STUDENT_BYTES, _ACCELERATOR_STUDENT_BYTES = 80 * _MIB, 256 * _MIB
_TEACHER_BYTES, _ACCELERATOR_TEACHER_BYTES = 40 * _MIB, 256 * _MIB
_BLOCK_BYTES, _ACCELERATOR_BLOCK_BYTES = _MIB // 2, 64 * _MIB


@dataclass(frozen=True)
class KeyStates:
    """Hidden states of some key layers at some positions, ready for the head.

    Args:
        layers: One hidden_RD per layer, with more rows than are read, perhaps.
        row_N: int64, the row of each position, without repetition.
        head: The model's head.
    """

    layers: tuple[Tensor, ...]
    row_N: Tensor
    head: Head

    def stacked(self, part: slice, dtype: torch.dtype) -> Tensor:
        """hidden_nKD of some positions, without gradient."""
        rows = self.row_N[part]
        return torch.stack([layer.detach().index_select(0, rows).to(dtype) for layer in self.layers], dim=1)


def key_states(states: States, layers: Sequence[int], position_N: Tensor, final_norm: bool = False) -> KeyStates:
    """Choose the states of some layers at some positions.

    Args:
        states: With these layers and, for ``final_norm`` or a decoder that projects, a tail.
        layers: 1-based, lowest first.
        position_N: int64, flat positions ``b * T + t``, without repetition; may be empty.
        final_norm: Whether intermediate layers go through the model's final norm first, as in the logit lens; the last
            layer is read after it anyway.

    Raises:
        RunError: ``final_norm`` is set and the model has no final norm that could be found.
    """
    tail = states.tail
    norm = tail.norm if tail is not None and final_norm else None
    if final_norm and norm is None:
        raise RunError(
            "final_norm is set, but no final norm was found in the model; false is allowed. Take final_norm out."
        )
    projection = None if tail is None else tail.projection
    depth = None if tail is None else tail.shape.num_layers
    flat = [states.layers[layer].flatten(0, 1) for layer in layers]
    if norm is None and projection is None:
        return KeyStates(tuple(flat), position_N, states.head)
    # Only at the positions that count: what stands on padding may be anything, NaN included.
    read = [hidden.index_select(0, position_N) for hidden in flat]
    if norm is not None:
        read = [hidden if layer == depth else norm(hidden) for layer, hidden in zip(layers, read, strict=True)]
    if projection is not None:
        read = [projection(hidden) for hidden in read]
    return KeyStates(tuple(read), torch.arange(len(position_N), device=position_N.device), states.head)


def distinct_positions(batch: Batch, *layers_BTD: Tensor) -> tuple[Tensor, Tensor]:
    """The attended positions, those with the same states taken together.

    Texts that begin alike, as prompts from a template do, have the same states up to where they part: a batch of 8
    Alpaca prompts repeats some 170 tokens. Reading these out once, and counting them as often as they occur, gives the
    same loss and, since the states are the same function of the weights, the same gradients of the weights.

    Args:
        batch: Texts; only equal tokens after equal tokens are ever taken together.
        layers_BTD: All states that are going to be read. They must be equal to the bit (dropout makes them differ).

    Returns:
        position_N, int64, ascending flat positions, and count_N, int64, how many attended positions each stands for.
    """
    mask_BT = batch.attention_mask_BT
    texts, width = mask_BT.shape
    ids_BT = batch.input_ids_BT.masked_fill(mask_BT == 0, -1)
    alike_BBT = (ids_BT[:, None] == ids_BT).cumprod(2).bool()
    number_B = torch.arange(texts, device=mask_BT.device)
    first_BT = torch.where(alike_BBT, number_B[:, None], texts).amin(1)
    position_A = batch.attended_A
    first_A = (first_BT * width + torch.arange(width, device=mask_BT.device)).flatten()[position_A]
    again = (first_A != position_A).nonzero().squeeze(1)
    pairs = position_A[again], first_A[again]
    same = torch.ones_like(again, dtype=torch.bool)
    for layer in layers_BTD:
        own, other = (layer.detach().flatten(0, 1).index_select(0, chosen) for chosen in pairs)
        same &= (own == other).all(-1)
    first_A[again] = torch.where(same, pairs[1], pairs[0])
    return first_A.unique(return_counts=True)


def trajectory_sums(
    student: KeyStates,
    teacher: KeyStates,
    distances: Trajectories,
    count_N: Tensor | None = None,
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """FDD's two distances, each summed over positions; never more logits than those of one chunk.

    As in ``chunked_sum`` the gradient is formed in the forward pass. It is formed once, of the weighted total: a second
    gradient of the size of the head would double the memory.

    Args:
        student: K layers; gets gradients, in its own dtype, as do the head's weight and bias.
        teacher: As many layers and positions; no gradient. Its tensors may be inference tensors.
        distances: What is computed, and the weights in the total.
        count_N: How often each position counts; None: once.
        chunk_size: Positions per chunk; None: as many as fill 80 MiB of float32 logits on the CPU, 256 MiB elsewhere.

    Returns:
        The weighted total, and without gradient trajectory and derivative: scalars, float32 (float64 for float64
        states), in nats and in 1 - cosine. Without positions all are 0, and the total gives zero gradients. It can be
        differentiated once.

    Raises:
        ValueError: The numbers of positions or layers differ.
    """
    sizes = [(len(side.row_N), len(side.layers)) for side in (student, teacher)]
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

    states: tuple[KeyStates, KeyStates]
    projections: tuple[Projection, Projection]
    distances: Trajectories
    count_N: Tensor
    sizes: tuple[int, int, int]

    @classmethod
    def of(
        cls,
        student: KeyStates,
        teacher: KeyStates,
        distances: Trajectories,
        count_N: Tensor,
        chunk_size: int | None,
    ) -> _Job:
        vocabulary = min(len(side.head.weight_VD) for side in (student, teacher))
        readouts = [HeadInputs(side.layers[0][:0], side.head) for side in (student, teacher)]
        projections = Projection(readouts[0], vocabulary), Projection(readouts[1], vocabulary)
        budgets = [_STUDENT_BYTES, _TEACHER_BYTES, _BLOCK_BYTES]
        if student.row_N.device.type != "cpu":
            budgets = [_ACCELERATOR_STUDENT_BYTES, _ACCELERATOR_TEACHER_BYTES, _ACCELERATOR_BLOCK_BYTES]
        chunk, part, block = (max(1, budget // (4 * vocabulary * len(student.layers))) for budget in budgets)
        chunk = chunk_size or chunk
        count_N = count_N.to(at_least_float32(student.layers[0].dtype))
        return cls((student, teacher), projections, distances, count_N, (chunk, min(part, chunk), min(block, chunk)))

    @property
    def dtype(self) -> torch.dtype:
        """Of the values and gradients."""
        return at_least_float32(self.states[0].layers[0].dtype)

    def run(self, gradients: Gradients | None, layer_gradients: Sequence[Tensor | None] | None) -> Sequence[Tensor]:
        """Trajectory, derivative and weighted total; fills the gradients where given."""
        student, (projection, _) = self.states[0], self.projections
        device, positions, layers = student.row_N.device, len(student.row_N), len(student.layers)
        vocabulary = len(projection.weight_VD)
        found: list[tuple[Tensor, Tensor]] = []
        chunk, part, block = (min(size, max(positions, 1)) for size in self.sizes)
        scores = torch.empty(chunk * layers, vocabulary, dtype=projection.dtype, device=device)
        others = torch.empty(part * layers, vocabulary, dtype=self.projections[1].dtype, device=device)
        scratch = torch.empty(SCRATCH, block, layers, vocabulary, dtype=self.dtype, device=device)
        with torch.autocast(device.type, enabled=False):
            for rows in _slices(0, positions, chunk):
                hidden_nD = student.stacked(rows, projection.dtype).flatten(0, 1)
                scores_nV = scores[: len(hidden_nD)]
                projection.write_scores(hidden_nD, scores_nV)
                scores_nKV = scores_nV.view(-1, layers, vocabulary)
                for own, other, count_n in self._blocks(rows, scores_nKV, others):
                    found.append(self._compare(own, other, count_n, scratch, gradients))
                if gradients is not None and layer_gradients is not None:
                    self._carry(student.row_N[rows], hidden_nD, scores_nV, gradients, layer_gradients)
        none = self.count_N[:0]
        trajectory, derivative = (
            torch.dot(torch.cat(values), self.count_N) for values in zip((none, none), *found, strict=True)
        )
        return trajectory, derivative, self.distances.trajectory * trajectory + self.distances.derivative * derivative

    def _blocks(self, rows: slice, scores_nKV: Tensor, others: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Student's and teacher's scores of a few positions at a time, and how often these count."""
        _, part, block = self.sizes
        teacher, projection = self.states[1], self.projections[1]
        for inner in _slices(rows.start, rows.stop, part):
            hidden_nD = teacher.stacked(inner, projection.dtype).flatten(0, 1)
            projection.write_scores(hidden_nD, others[: len(hidden_nD)])
            others_nKV = others[: len(hidden_nD)].view(-1, *scores_nKV.shape[1:])
            own_nKV = scores_nKV[inner.start - rows.start : inner.stop - rows.start]
            for at in _slices(0, len(others_nKV), block):
                yield own_nKV[at], others_nKV[at], self.count_N[inner][at]

    def _compare(
        self, own: Tensor, other: Tensor, count_n: Tensor, scratch: Tensor, gradients: Gradients | None
    ) -> tuple[Tensor, Tensor]:
        """Both distances in a block; where gradients are wanted the student's scores are overwritten by theirs."""
        head = self.states[0].head
        student_nKV = logits_of(own, head).to(scratch.dtype)
        teacher_nKV = logits_of(other, self.states[1].head).to(scratch.dtype)
        slope = None if head.softcap is None else 1 - (student_nKV / head.softcap).square()
        wanted = gradients is not None
        values = self.distances(student_nKV, teacher_nKV, count_n[:, None, None], scratch[:, : len(own)], wanted)
        if gradients is not None:
            if slope is not None:
                student_nKV *= slope
            if (factor := head.scale * gradients.scale) != 1.0:
                student_nKV *= factor
            if student_nKV.data_ptr() != own.data_ptr():
                own.copy_(student_nKV)
        return values

    def _carry(
        self,
        row_n: Tensor,
        hidden_nD: Tensor,
        gradient_nV: Tensor,
        gradients: Gradients,
        layer_gradients: Sequence[Tensor | None],
    ) -> None:
        """From the scores of a chunk on to states and head."""
        if any(gradient is not None for gradient in layer_gradients):
            hidden_gradient = product(gradient_nV, self.projections[0].weight_VD)
            for gradient, own in zip(
                layer_gradients, hidden_gradient.view(len(row_n), len(layer_gradients), -1).unbind(1), strict=True
            ):
                if gradient is not None:
                    gradient.index_copy_(0, row_n, own.to(gradient.dtype))
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
    return (slice(at, min(at + size, stop)) for at in range(start, stop, size))
