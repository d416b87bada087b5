"""Hidden-state alignment (Hid): cosine distance of the student's projected states to the teacher's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mta_framework.alignment.importance import upcast
from mta_framework.types import SpanIndex

_EPSILON = 1e-6


def hidden_sum(
    projection: nn.Module, student_BTD: Tensor, teacher_BTD: Tensor, weight: Tensor, index: SpanIndex
) -> Tensor:
    """Compute Hid of one key layer, summed over the texts that have a span.

    The value of a text is the weighted mean of ``1 - cos(W h^S_t + b, h^T_t)`` over all its (token, span) memberships.
    A token has the same distance in each of its spans, so it is computed once and multiplied by their number.

    Args:
        projection: Linear map from the student's width to the teacher's; runs under the caller's autocast.
        student_BTD: The student's hidden states; they and the projection get gradients.
        teacher_BTD: The teacher's hidden states; no gradient.
        weight: The teacher's flat token weights, (B * T,), which sum to 1 over the memberships of each text.
        index: Spans of the batch.

    Returns:
        Scalar in float32; 0 with zero gradients where no text has a span.

    Source: MTA (arXiv 2605.01374v2), Eq. 12-13.
    """
    projected_UD = projection(upcast(student_BTD.flatten(0, 1).index_select(0, index.token_U)))
    with torch.no_grad():
        teacher_UD = upcast(teacher_BTD.flatten(0, 1).index_select(0, index.token_U))
        weight_U = weight[index.token_U] * index.multiplicity_U
    cosine_U = functional.cosine_similarity(upcast(projected_UD), teacher_UD, dim=-1, eps=_EPSILON)
    return (weight_U * (1 - cosine_U)).sum()


def span_hidden_sum(projection: nn.Module, student_SD: Tensor, teacher_SD: Tensor, weight_S: Tensor) -> Tensor:
    """Compute Hid of one key layer over spans instead of tokens, for models with different tokenizers.

    The value of a text is the weighted mean of ``1 - cos(W U^S_k + b, U^T_k)`` over its spans.

    Args:
        projection: Linear map from the student's width to the teacher's; runs under the caller's autocast.
        student_SD: The student's span vectors; they and the projection get gradients.
        teacher_SD: The teacher's vectors of the same spans in the same order; no gradient.
        weight_S: The teacher's span weights, which sum to 1 over the spans of each text; no gradient.

    Returns:
        Scalar in float32; 0 with zero gradients where there is no span.
    """
    projected_SD = upcast(projection(student_SD))
    cosine_S = functional.cosine_similarity(projected_SD, teacher_SD, dim=-1, eps=_EPSILON)
    return (weight_S * (1 - cosine_S)).sum()
