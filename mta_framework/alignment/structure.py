"""Dynamic structural alignment (DSA): difference of the pairwise cosines of a text's spans in both models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from mta_framework.alignment.span_pairs import cosine_difference_sum

Reduction = Literal["example", "batch"]
_EPSILON = 1e-6


def structure_sum(
    student_SD: Tensor,
    teacher_SD: Tensor,
    weight_S: Tensor,
    spans_per_text: Sequence[int],
    reduction: Reduction,
    max_spans: int | None = None,
) -> Tensor:
    """Compute DSA of one key layer, summed over the texts that have a pair of spans.

    The value of a text is the mean of ``(cos(U^S_i, U^S_j) - cos(U^T_i, U^T_j))^2`` over all ordered pairs i != j of
    its spans, with weights ``w_i w_j``. Spans of two texts are never compared. The pairs of a long text are never
    all in memory at once: see ``cosine_difference_sum``.

    Args:
        student_SD: The student's span vectors in float32, text by text; they get gradients.
        teacher_SD: The teacher's vectors of the same spans, of any width; no gradient.
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

    Source: MTA (arXiv 2605.01374), Eq. 10-11.
    """
    if max_spans is not None and max(spans_per_text, default=0) > max_spans:
        kept_K = _heaviest(weight_S, spans_per_text, max_spans)
        student_SD, teacher_SD, weight_S = (rows.index_select(0, kept_K) for rows in (student_SD, teacher_SD, weight_S))
        spans_per_text = [min(count, max_spans) for count in spans_per_text]
    texts = [text for text in _texts(spans_per_text) if text.stop - text.start > 1]
    with torch.autocast(student_SD.device.type, enabled=False):
        student_direction_SD = functional.normalize(student_SD, dim=-1, eps=_EPSILON)
        with torch.no_grad():
            teacher_direction_SD = functional.normalize(teacher_SD, dim=-1, eps=_EPSILON)
            share_S = _shares(weight_S, texts, reduction)
        return cosine_difference_sum(student_direction_SD, teacher_direction_SD, share_S, texts)


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

    Rows of texts without a pair stay as they are; they are not used.
    """
    if not texts:
        return weight_S
    weight_BS = pad_sequence([weight_S[text] for text in texts], batch_first=True)
    # Each pair once, a sum of positive numbers: nothing cancels where one span has all the weight.
    total_B = 2 * (weight_BS[:, 1:] * weight_BS.cumsum(1)[:, :-1]).sum(1)
    if reduction == "batch":
        total_B = (total_B.sum() / len(texts)).expand(len(texts))
    scale_B = total_B.clamp_min(torch.finfo(total_B.dtype).tiny).rsqrt()
    share_S = weight_S.clone()
    for text, scale in zip(texts, scale_B.unbind(), strict=True):
        share_S[text].mul_(scale)
    return share_S
