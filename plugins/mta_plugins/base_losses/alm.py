"""Approximate likelihood matching, for a teacher with another tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mta_framework import CHUNKS, TOKENS, BaseLoss, Batch, LossTerm, LossTerms, PluginParams, Progress, States

if TYPE_CHECKING:
    from torch import Tensor

_EPSILON = 1e-6
"""Subtracted from scaled log-probabilities, as in the authors' code: no chunk is certain."""


class ALM(BaseLoss):
    """KL divergence between both models' likelihoods of chunks of text, for any two tokenizers, plus cross-entropy.

    A chunk is the text between two consecutive positions of the response at which both tokenizations have a boundary;
    p and q are the probabilities that teacher and student give its tokens. With temperature t, ``P = p^(1/t)`` and
    ``Q = q^(1/t)``, the term ``alm`` is ``t (P log(P / Q) + (1 - P) log((1 - P) / (1 - Q)))`` per chunk. Where teacher
    and student share a tokenizer, each supervised token is a chunk. The term ``alm_cross_entropy`` is ``-log q(y)`` in
    nats per supervised token.

    Source: ALM (Minixhofer et al., arXiv 2503.20083) and its code, tokenkit. Differences: that code returns the binary
    cross-entropy, which has the same gradient, and does not multiply it by t, which keeps the size of the gradient at
    any t; chunks are as short as they can be, and are not merged where a tokenizer's boundary is unlikely (debiasing).
    """

    NAME = "alm"
    TITLE = "ALM"
    NEEDS_SHARED_VOCABULARY = False

    class Params(PluginParams):
        """Options."""

        temperature: float = Field(100.0, ge=1, le=1000, description="Temperature t that flattens the likelihoods.")
        cross_entropy: float = Field(
            1.0, ge=0, description="Factor on the cross-entropy on the training data; 0: none."
        )

    params: Params

    def compute(self, student: States, teacher: States | None, batch: Batch, progress: Progress) -> LossTerms:
        """Compute the terms ``alm`` and, if its factor is not 0, ``alm_cross_entropy``.

        The heads are applied twice: the gradient of a token depends on the likelihood of its whole chunk.
        """
        from mta_framework import chunked_loss

        assert teacher is not None
        log_q = _log_likelihoods(student, batch, batch.matched_R)
        log_p = _log_likelihoods(teacher, batch.teacher or batch, batch.matched_R)
        value, slope = _divergence(log_q, log_p, self.params.temperature)
        slope_N = slope if batch.chunk_N is None else _with_zero(slope)[batch.chunk_N]
        inputs = chunked_loss.select_supervised(student, batch)
        linear = chunked_loss.chunked_sum(_weighted, inputs, None, batch.target_N, slope_N)
        unit = TOKENS if batch.chunk_N is None else CHUNKS
        terms = (LossTerm(self.NAME, linear + (value.to(linear.dtype) - linear).detach(), unit),)
        if self.params.cross_entropy == 0:
            return terms
        total = chunked_loss.chunked_sum(chunked_loss.cross_entropy, inputs, None, batch.target_N)
        return *terms, LossTerm(f"{self.NAME}_cross_entropy", total, TOKENS, self.params.cross_entropy)


def _log_likelihoods(states: States, batch: Batch, matched_R: Tensor | None) -> Tensor:
    """Log-probability of the tokens of each chunk, of each token if the tokenizer is shared; float64, no gradient."""
    from mta_framework import chunked_loss

    inputs = chunked_loss.select_supervised(states, batch)
    log_prob_N = -chunked_loss.chunked_values(chunked_loss.cross_entropy, inputs, None, batch.target_N).double()
    if batch.chunk_N is None or matched_R is None:
        return log_prob_N
    return log_prob_N.new_zeros(len(matched_R) + 1).index_add(0, batch.chunk_N, log_prob_N)[:-1]


def _divergence(log_q: Tensor, log_p: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The sum over chunks, and its derivative by each of ``log_q``."""
    import torch

    log_small_q, log_small_p = (log_x.clamp_max(0) / temperature - _EPSILON for log_x in (log_q, log_p))
    small_p, rest_q, rest_p = log_small_p.exp(), -torch.expm1(log_small_q), -torch.expm1(log_small_p)
    values = small_p * (log_small_p - log_small_q) + rest_p * (rest_p / rest_q).log()
    return temperature * values.sum(), (rest_p - rest_q) / rest_q


def _with_zero(slope_R: Tensor) -> Tensor:
    """A further entry for tokens that belong to no chunk."""
    from torch.nn.functional import pad

    return pad(slope_R, (0, 1))


def _weighted(student_logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    from mta_framework import chunked_loss

    return -weights.to(student_logits.dtype) * chunked_loss.cross_entropy(student_logits, targets)
