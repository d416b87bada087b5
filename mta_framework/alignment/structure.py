"""Dynamic structural alignment (DSA): how the spans of a text lie to each other, student against teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Reduction = Literal["example", "batch"]
_EPSILON = 1e-6


def structure_sum(
    student_SD: Tensor,
    teacher_SD: Tensor,
    weight_S: Tensor,
    spans_per_text: Sequence[int],
    reduction: Reduction,
) -> Tensor:
    """DSA of one key layer, summed over the texts that have a pair of spans (MTA, Eq. 10-11).

    Of each text, over all ordered pairs i != j of its spans: the mean of
    ``(cos(U^S_i, U^S_j) - cos(U^T_i, U^T_j))^2`` with weights ``w_i w_j``. Only blocks of spans x spans of one text
    are ever built.

    Args:
        student_SD: Span vectors in float32, text by text; gets gradients.
        teacher_SD: The teacher's, of any width; no gradient.
        weight_S: The teacher's span weights; no gradient.
        spans_per_text: How many of the rows belong to each text.
        reduction: ``example``: divide by the sum of pair weights per text, so that the value does not depend on how
            a batch is cut. ``batch``: divide once, by the sum over all texts (authors' code), and multiply by the
            number of texts that have a pair, so that the division by that number still gives the authors' value.

    Returns:
        Scalar; 0 that hangs on the graph where no text has a pair. A text whose pairs all have weight 0 adds 0.
    """
    with torch.autocast(student_SD.device.type, enabled=False):
        student_P = _cosines(student_SD, spans_per_text)
        with torch.no_grad():
            teacher_P = _cosines(teacher_SD, spans_per_text)
            weight_P = _pair_weights(weight_S, spans_per_text, reduction)
        return (weight_P * (student_P - teacher_P).square()).sum()


def _blocks(rows: Tensor, spans_per_text: Sequence[int]) -> list[Tensor]:
    return [block for block in rows.split(list(spans_per_text)) if len(block) > 1]


def _flat(blocks: Sequence[Tensor], like: Tensor) -> Tensor:
    """All blocks end to end; without blocks, an empty slice that still hangs on the graph of ``like``."""
    return torch.cat([block.flatten() for block in blocks]) if blocks else like.flatten()[:0]


def _cosines(vector_SD: Tensor, spans_per_text: Sequence[int]) -> Tensor:
    direction_SD = functional.normalize(vector_SD, dim=-1, eps=_EPSILON)
    return _flat([block @ block.T for block in _blocks(direction_SD, spans_per_text)], direction_SD)


def _pair_weights(weight_S: Tensor, spans_per_text: Sequence[int], reduction: Reduction) -> Tensor:
    blocks = [torch.outer(block, block).fill_diagonal_(0) for block in _blocks(weight_S, spans_per_text)]
    tiny = torch.finfo(weight_S.dtype).tiny
    if reduction == "example":
        return _flat([block / block.sum().clamp_min(tiny) for block in blocks], weight_S)
    weight_P = _flat(blocks, weight_S)
    return weight_P * (len(blocks) / weight_P.sum().clamp_min(tiny))
