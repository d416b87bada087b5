"""Differences of the pairwise cosines of a text's spans in two models, as in dynamic structural alignment (DSA)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from mta_framework.interfaces import SpanCosines

Reduction = Literal["example", "batch"]

_EPSILON = 1e-6


def directions(vector_SD: Tensor) -> Tensor:
    """Scale vectors to length 1; a zero vector stays zero.

    Args:
        vector_SD: Vectors in at least float32; they get gradients.
    """
    with torch.autocast(vector_SD.device.type, enabled=False):
        return functional.normalize(vector_SD, dim=-1, eps=_EPSILON)


class VectorGeometry:
    """The cosines between spans whose vectors are at hand; computed block by block, never all at once.

    Args:
        vector_SD: Span vectors, text by text; of a zero vector all cosines are 0. No gradient.
    """

    def __init__(self, vector_SD: Tensor):
        with torch.no_grad():
            self._direction_SD = directions(vector_SD)

    def select(self, span_K: Tensor) -> VectorGeometry:
        """Restrict it to some spans; see ``SpanCosines``."""
        selected = VectorGeometry.__new__(VectorGeometry)
        selected._direction_SD = self._direction_SD.index_select(0, span_K)
        return selected

    def subtract_from(self, cosine_RS: Tensor, text: slice, rows: slice) -> None:
        """Subtract the cosines of some spans with all spans of their text, in place; see ``SpanCosines``."""
        direction_SD = self._direction_SD.to(cosine_RS.dtype)
        cosine_RS.addmm_(direction_SD[rows], direction_SD[text].T, alpha=-1)

    def upper_triangles(self, spans_per_text: Sequence[int]) -> Tensor:
        """Compute the cosines of the pairs i < j of each text, (P,): text by text and row by row."""
        triangles = []
        for text in _texts(spans_per_text):
            cosine_SS = self._direction_SD[text] @ self._direction_SD[text].T
            row_P, column_P = torch.triu_indices(len(cosine_SS), len(cosine_SS), 1, device=cosine_SS.device)
            triangles.append(cosine_SS[row_P, column_P])
        return torch.cat(triangles) if triangles else self._direction_SD.new_zeros(0)


def structure_sum(
    student_SD: Tensor,
    teacher: SpanCosines,
    weight_S: Tensor,
    spans_per_text: Sequence[int],
    reduction: Reduction,
    max_spans: int | None = None,
) -> Tensor:
    """Compare the pairwise cosines of spans in both models, summed over the texts that have a pair of spans.

    The value of a text is the mean of ``(cos(U^S_i, U^S_j) - cos(U^T_i, U^T_j))^2`` over all ordered pairs i != j of
    its spans, with weights ``w_i w_j``. Spans of two texts are never compared. The pairs of a long text are never
    all in memory at once: see ``cosine_difference_sum``.

    Args:
        student_SD: The student's span vectors in float32, text by text; they get gradients.
        teacher: The teacher's cosines of the same spans.
        weight_S: The teacher's span weights; no gradient.
        spans_per_text: Number of rows that belong to each text.
        reduction: ``example``: divide by the sum of pair weights of each text, so that the value does not depend on how
            a batch is cut. ``batch``: divide once by the sum over all texts (authors' code), and multiply by the number
            of texts that have a pair, so that division by that number gives the authors' value.
        max_spans: Compare only this many spans of a text, at least 2: the heaviest ones, earlier ones first where
            weights are equal. None: all.

    Returns:
        Scalar; where no text has a pair it is 0 and still part of the graph. A text whose pairs all have weight 0
        adds 0.

    Source: MTA (arXiv 2605.01374v2), Eq. 10-11.
    """
    if max_spans is not None and max(spans_per_text, default=0) > max_spans:
        kept_K = _heaviest(weight_S, spans_per_text, max_spans)
        student_SD, weight_S = (rows.index_select(0, kept_K) for rows in (student_SD, weight_S))
        teacher = teacher.select(kept_K)
        spans_per_text = [min(count, max_spans) for count in spans_per_text]
    texts = [text for text in _texts(spans_per_text) if text.stop - text.start > 1]
    with torch.autocast(student_SD.device.type, enabled=False):
        with torch.no_grad():
            share_S = _shares(weight_S, texts, reduction)
        return cosine_difference_sum(directions(student_SD), teacher, share_S, texts)


def _heaviest(weight_S: Tensor, spans_per_text: Sequence[int], count: int) -> Tensor:
    """Indices of each text's heaviest spans, ascending."""
    kept = [
        weight_S[text].sort(descending=True, stable=True).indices[:count].sort().values + text.start
        for text in _texts(spans_per_text)
    ]
    return torch.cat(kept)


def _texts(spans_per_text: Sequence[int]) -> list[slice]:
    return [slice(start, end) for start, end in pairwise(accumulate(spans_per_text, initial=0))]


def _shares(weight_S: Tensor, texts: Sequence[slice], reduction: Reduction) -> Tensor:
    """Scale weights so that their products over pairs sum to 1 in each text, or to the number of texts over all.

    Rows outside of ``texts``, those of texts without a pair, have no meaning; they are not used.
    """
    if not texts:
        return weight_S
    weight_BS = rows_of_texts(weight_S, texts)
    # Each pair once, a sum of positive numbers: nothing cancels where one span has all the weight.
    total_B = 2 * (weight_BS[:, 1:] * weight_BS.cumsum(1)[:, :-1]).sum(1)
    if reduction == "batch":
        total_B = (total_B.sum() / len(texts)).expand(len(texts))
    scale_B = total_B.clamp_min(torch.finfo(total_B.dtype).tiny).rsqrt()
    return weight_S * scale_B.index_select(0, _text_of_rows(texts, len(weight_S), weight_S.device).clamp_min(0))


def rows_of_texts(rows_S: Tensor, texts: Sequence[slice]) -> Tensor:
    """Put the rows of each text side by side, (B, n) or (B, n, D), with zeros behind those of shorter texts.

    Args:
        rows_S: A value or a vector of each span; they get gradients.
        texts: The rows of each text, at least one text.
    """
    start_B1, end_B1 = np.array([(text.start, text.stop) for text in texts]).T[:, :, None]
    row_BN = start_B1 + np.arange((end_B1 - start_B1).max())
    index_BN = _to_device(np.where(row_BN < end_B1, row_BN, len(rows_S)), rows_S.device)
    padded = torch.cat([rows_S, rows_S.new_zeros(1, *rows_S.shape[1:])])
    return padded.index_select(0, index_BN.flatten()).unflatten(0, row_BN.shape)


def _text_of_rows(texts: Sequence[slice], rows: int, device: torch.device) -> Tensor:
    """The position in ``texts`` of each row's text; rows outside of all texts have negative numbers of their own."""
    text_S = -1 - np.arange(rows)
    for position, text in enumerate(texts):
        text_S[text] = position
    return _to_device(text_S, device)


def _to_device(values: NDArray[np.int64], device: torch.device) -> Tensor:
    """Copy indices to a device without waiting for it."""
    tensor = torch.from_numpy(values)
    source = tensor.pin_memory() if device.type == "cuda" else tensor
    return source.to(device, non_blocking=device.type != "mps")  # which may read memory that has been given back


_BLOCK_PAIRS = 2**22
"""Most pairs in memory at once: 16 MiB in float32, or all pairs of a text of 2,048 spans."""

_TEXT_BY_TEXT = {"cpu"}
"""Devices on which no products across texts are computed; elsewhere a launch costs more than products to throw away."""


def cosine_difference_sum(
    student_SD: Tensor, teacher: SpanCosines, weight_S: Tensor, texts: Sequence[slice], block_pairs: int = _BLOCK_PAIRS
) -> Tensor:
    """Sum ``w_i w_j (u_i u_j - c_ij)^2`` over all ordered pairs i != j of spans of the same text.

    The gradient, ``4 w_i sum_j w_j (u_i u_j - c_ij) u_j``, is formed in the forward pass: the backward pass needs
    no more memory than ``student_SD``.

    Args:
        student_SD: The student's unit vectors u; they get gradients.
        teacher: The teacher's cosines c of the same spans.
        weight_S: Weights w of the spans; no gradient.
        texts: The rows of each text; rows outside of all texts have no pairs.
        block_pairs: Number of pairs in memory at once; at least those of a single span. On an accelerator as many texts
            as have so many pairs, those across texts included, are compared at once.

    Returns:
        Scalar in the dtype of ``student_SD``; 0 with a zero gradient where there is no text. It can be differentiated
        once.
    """
    if torch.is_grad_enabled() and student_SD.requires_grad:
        return _CosineDifferenceSum.apply(student_SD, teacher, weight_S, texts, block_pairs)
    with torch.no_grad():
        return _sum(student_SD, teacher, weight_S, texts, block_pairs, None)


class _CosineDifferenceSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, student_SD: Tensor, teacher: SpanCosines, weight_S: Tensor, texts: Sequence[slice], block_pairs: int
    ) -> Tensor:
        gradient_SD = torch.zeros_like(student_SD)
        total = _sum(student_SD, teacher, weight_S, texts, block_pairs, gradient_SD)
        ctx.save_for_backward(gradient_SD)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_SD,) = ctx.saved_tensors
        return gradient_SD * grad_output, None, None, None, None


def _sum(
    student_SD: Tensor,
    teacher: SpanCosines,
    weight_S: Tensor,
    texts: Sequence[slice],
    block_pairs: int,
    gradient_SD: Tensor | None,
) -> Tensor:
    """The sum; fills ``gradient_SD`` where given."""
    weight_S = weight_S.to(student_SD.dtype)
    row_S = torch.zeros_like(weight_S)
    weighted_SD = None if gradient_SD is None else student_SD * weight_S[:, None]
    text_S = None
    if student_SD.device.type not in _TEXT_BY_TEXT:
        text_S, texts = _text_of_rows(texts, len(student_SD), student_SD.device), _joined(texts, block_pairs)
    for text in texts:
        rows = max(1, block_pairs // (text.stop - text.start))
        for start in range(text.start, text.stop, rows):
            block = slice(start, min(start + rows, text.stop))
            difference = _differences(student_SD, teacher, text, block)
            if text_S is not None:
                difference *= text_S[block, None] == text_S[text]
            if gradient_SD is not None and weighted_SD is not None:
                torch.mm(difference, weighted_SD[text], out=gradient_SD[block])
            torch.mv(difference.square_(), weight_S[text], out=row_S[block])
    if gradient_SD is not None:
        gradient_SD *= 4 * weight_S[:, None]
    return weight_S @ row_S


def _joined(texts: Sequence[slice], block_pairs: int) -> list[slice]:
    """Join neighbouring texts as long as their pairs, those across texts included, are no more than a block's."""
    joined: list[slice] = []
    for text in texts:
        if joined and (text.stop - joined[-1].start) ** 2 <= block_pairs:
            joined[-1] = slice(joined[-1].start, text.stop)
        else:
            joined.append(text)
    return joined


def _differences(student_SD: Tensor, teacher: SpanCosines, text: slice, block: slice) -> Tensor:
    """``u_i u_j - c_ij`` of some spans i with all spans j of their text; 0 where i = j."""
    difference = student_SD[block] @ student_SD[text].T
    teacher.subtract_from(difference, text, block)
    difference.diagonal(block.start - text.start).zero_()
    return difference
