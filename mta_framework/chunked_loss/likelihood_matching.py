"""Approximate likelihood matching: the divergence of two models' likelihoods of the same chunks of text."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mta_framework.chunked_loss.chunked import chunked_sum, chunked_values
from mta_framework.chunked_loss.divergences import cross_entropy
from mta_framework.chunked_loss.projection import select_supervised, widest_dtype
from mta_framework.types import Batch, States

_EPSILON = 1e-6
"""Subtracted from scaled log-probabilities, as in the authors' code: no chunk is certain."""


def likelihood_matching_sum(student: States, teacher: States, batch: Batch, temperature: float) -> Tensor:
    """Sum the binary KL divergence of both models' likelihoods over the chunks of a batch.

    With p and q the probabilities that teacher and student give to the tokens of a chunk, ``P = p^(1/t)`` and
    ``Q = q^(1/t)``, it is ``t (P log(P / Q) + (1 - P) log((1 - P) / (1 - Q)))`` per chunk. The student's head is
    applied twice: the gradient of a token depends on the likelihood of its whole chunk.

    Args:
        student: The student's states; final states and head get gradients.
        teacher: The teacher's states; no gradient.
        batch: Supervised tokens with the chunk of each (``chunk_N``), also of ``batch.teacher``; where the models share
            a tokenizer, each supervised token is a chunk.
        temperature: Temperature t, at least 1.

    Returns:
        Scalar in at least float32; 0 with a zero gradient where there is no chunk.

    Source: ALM (Minixhofer et al., arXiv 2503.20083) and its code, tokenkit.
    """
    log_q = _log_likelihoods(student, batch, batch.matched_R)
    log_p = _log_likelihoods(teacher, batch.teacher or batch, batch.matched_R)
    value, slope = _divergence(log_q, log_p, temperature)
    # Tokens of no chunk have the index behind the last one.
    slope_N = slope if batch.chunk_N is None else functional.pad(slope, (0, 1))[batch.chunk_N]
    linear = chunked_sum(_weighted, select_supervised(student, batch), None, batch.target_N, slope_N)
    return linear + (value.to(linear.dtype) - linear).detach()


def _log_likelihoods(states: States, batch: Batch, matched_R: Tensor | None) -> Tensor:
    """Log-probability of the tokens of each chunk, of each token if the tokenizer is shared; no gradient."""
    log_prob_N = -chunked_values(cross_entropy, select_supervised(states, batch), None, batch.target_N)
    log_prob_N = log_prob_N.to(widest_dtype(log_prob_N.device))
    if batch.chunk_N is None or matched_R is None:
        return log_prob_N
    return log_prob_N.new_zeros(len(matched_R) + 1).index_add(0, batch.chunk_N, log_prob_N)[:-1]


def _divergence(log_q: Tensor, log_p: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The sum over chunks, and its derivative by each of ``log_q``."""
    log_small_q, log_small_p = (log_x.clamp_max(0) / temperature - _EPSILON for log_x in (log_q, log_p))
    small_p, rest_q, rest_p = log_small_p.exp(), -torch.expm1(log_small_q), -torch.expm1(log_small_p)
    values = small_p * (log_small_p - log_small_q) + rest_p * (rest_p / rest_q).log()
    return temperature * values.sum(), (rest_p - rest_q) / rest_q


def _weighted(student_logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    return -weights.to(student_logits.dtype) * cross_entropy(student_logits, targets)
