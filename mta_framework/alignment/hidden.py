"""Hidden alignment (Hid): the student's states, mapped to the teacher's width, against the teacher's states."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mta_framework.alignment.pooling import precise
from mta_framework.types import SpanIndex

_EPSILON = 1e-6


def hidden_sum(
    projection: nn.Module, student_BTD: Tensor, teacher_BTD: Tensor, weight: Tensor, index: SpanIndex
) -> Tensor:
    """Hid of one key layer, summed over the texts that have a span (MTA, Eq. 12-13).

    Of each text, over all (token, span) memberships: the mean of ``1 - cos(W h^S_t + b, h^T_t)`` with the teacher's
    normalised weights. A token's distance is the same in each of its spans, so it is computed once and multiplied.

    Args:
        projection: Maps the student's width to the teacher's; runs under the caller's autocast.
        student_BTD: Gets gradients, as does the projection.
        teacher_BTD: No gradient.
        weight: The teacher's flat token weights, (B * T,), that sum to 1 over the memberships of each text.
        index: The spans.

    Returns:
        Scalar in float32; 0 that gives zero gradients where no text has a span.
    """
    projected_UD = projection(precise(student_BTD.flatten(0, 1).index_select(0, index.token_U)))
    with torch.no_grad():
        teacher_UD = precise(teacher_BTD.flatten(0, 1).index_select(0, index.token_U))
        weight_U = weight[index.token_U] * index.multiplicity_U
    cosine_U = functional.cosine_similarity(precise(projected_UD), teacher_UD, dim=-1, eps=_EPSILON)
    return (weight_U * (1 - cosine_U)).sum()


def span_hidden_sum(projection: nn.Module, student_SD: Tensor, teacher_SD: Tensor, weight_S: Tensor) -> Tensor:
    """Hid of one key layer where the two models have tokenizers of their own: spans are compared, not tokens.

    Of each text, over its spans: the mean of ``1 - cos(W U^S_k + b, U^T_k)`` with the teacher's span weights.

    Args:
        projection: As above.
        student_SD: Span vectors; they get gradients.
        teacher_SD: The teacher's, in the same order; no gradient.
        weight_S: The teacher's span weights, which sum to 1 over the spans of each text; no gradient.

    Returns:
        Scalar in float32; 0 that gives zero gradients where there is no span.
    """
    projected_SD = precise(projection(student_SD))
    cosine_S = functional.cosine_similarity(projected_SD, teacher_SD, dim=-1, eps=_EPSILON)
    return (weight_S * (1 - cosine_S)).sum()
