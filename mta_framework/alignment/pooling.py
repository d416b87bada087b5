"""From tokens to spans: normalised token weights, span weights, span vectors. All sums are over ragged indices."""

from __future__ import annotations

import torch
from torch import Tensor

from mta_framework.types import SpanIndex


def normalise(weight_BT: Tensor, index: SpanIndex) -> Tensor:
    """Token weights that sum to 1 over all (token, span) memberships of each text.

    Args:
        weight_BT: As an importance estimator returns them, of any scale per text.
        index: The spans.

    Returns:
        Flat weights, (B * T,), float32, for lookup by ``token_M`` and ``token_U``. A text whose weights are all 0
        keeps zeros.
    """
    texts, length = weight_BT.shape
    contribution_U = weight_BT.flatten()[index.token_U] * index.multiplicity_U
    total_B = weight_BT.new_zeros(texts).index_add(0, index.token_U // length, contribution_U)
    return (weight_BT / _positive(total_B)[:, None]).flatten()


def span_weights(weight: Tensor, index: SpanIndex) -> Tensor:
    """weight_S: the sum of the normalised weights of each span's tokens (MTA, Eq. 9; the teacher's weights there)."""
    return weight.new_zeros(len(index.text_S)).index_add(0, index.span_M, weight[index.token_M])


def span_vectors(hidden_BTD: Tensor, weight: Tensor, index: SpanIndex) -> Tensor:
    """``U_k = sum_t w_t h_t / sum_t w_t`` over the tokens of each span (MTA, Eq. 8).

    Args:
        hidden_BTD: Any dtype; gets gradients.
        weight: Flat token weights, (B * T,), without gradient; their scale per text is free.
        index: The spans.

    Returns:
        vector_SD in at least float32. A span whose weights are all 0 gives a zero vector without gradient.
    """
    share_M = weight[index.token_M] / _positive(span_weights(weight, index))[index.span_M]
    hidden_MD = precise(hidden_BTD.flatten(0, 1).index_select(0, index.token_M))
    pooled_MD = hidden_MD * share_M[:, None]
    return pooled_MD.new_zeros(len(index.text_S), hidden_BTD.shape[-1]).index_add(0, index.span_M, pooled_MD)


def precise(values: Tensor) -> Tensor:
    """In float32, or float64 where that came in: geometry in 16 bits would drown small differences of angles."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _positive(total: Tensor) -> Tensor:
    return total.clamp_min(torch.finfo(total.dtype).tiny)
