"""Pools tokens to spans: normalised token weights, span weights and span vectors, all by sums over ragged indices."""

from __future__ import annotations

import torch
from torch import Tensor

from mta_framework.types import SpanIndex


def normalise(weight_BT: Tensor, index: SpanIndex) -> Tensor:
    """Scale token weights to sum to 1 over all (token, span) memberships of each text.

    Args:
        weight_BT: Weights by an importance estimator, on any scale per text.
        index: Spans of the batch.

    Returns:
        Flat weights, (B * T,), float32, to be indexed by ``token_M`` and ``token_U``. A text whose weights are all 0
        keeps zeros.
    """
    texts, length = weight_BT.shape
    contribution_U = weight_BT.flatten()[index.token_U] * index.multiplicity_U
    total_B = weight_BT.new_zeros(texts).index_add(0, index.token_U // length, contribution_U)
    return (weight_BT / _positive(total_B)[:, None]).flatten()


def span_weights(weight: Tensor, index: SpanIndex) -> Tensor:
    """Sum the weights of each span's tokens to weight_S.

    Args:
        weight: Flat token weights, (B * T,).
        index: Spans of the batch.

    Source: MTA (arXiv 2605.01374), Eq. 9, with the teacher's normalised weights.
    """
    return weight.new_zeros(len(index.text_S)).index_add(0, index.span_M, weight[index.token_M])


def span_vectors(hidden_BTD: Tensor, weight: Tensor, index: SpanIndex) -> Tensor:
    """Pool hidden states to span vectors ``U_k = sum_t w_t h_t / sum_t w_t`` over the tokens of each span.

    Args:
        hidden_BTD: Hidden states in any dtype; they get gradients.
        weight: Flat token weights, (B * T,), on any scale per text; no gradient.
        index: Spans of the batch.

    Returns:
        vector_SD in at least float32. A span whose weights are all 0 has a zero vector without gradient.

    Source: MTA (arXiv 2605.01374), Eq. 8.
    """
    share_M = weight[index.token_M] / _positive(span_weights(weight, index))[index.span_M]
    hidden_MD = upcast(hidden_BTD.flatten(0, 1).index_select(0, index.token_M))
    pooled_MD = hidden_MD * share_M[:, None]
    return pooled_MD.new_zeros(len(index.text_S), hidden_BTD.shape[-1]).index_add(0, index.span_M, pooled_MD)


def upcast(values: Tensor) -> Tensor:
    """Upcast to float32 (float64 stays): in 16 bits small differences of angles would be lost."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _positive(total: Tensor) -> Tensor:
    return total.clamp_min(torch.finfo(total.dtype).tiny)
