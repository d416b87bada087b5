"""Approximate likelihood matching, for a teacher with another tokenizer."""

from __future__ import annotations

from pydantic import Field

from mta_framework import CHUNKS, TOKENS, BaseLoss, Batch, LossTerm, LossTerms, PluginParams, Progress, States


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
        """Compute the terms ``alm`` and, if its factor is not 0, ``alm_cross_entropy``."""
        from mta_framework import chunked_loss

        assert teacher is not None
        matching = chunked_loss.likelihood_matching_sum(student, teacher, batch, self.params.temperature)
        terms = (LossTerm(self.NAME, matching, TOKENS if batch.chunk_N is None else CHUNKS),)
        if self.params.cross_entropy == 0:
            return terms
        inputs = chunked_loss.select_supervised(student, batch)
        total = chunked_loss.chunked_sum(chunked_loss.cross_entropy, inputs, None, batch.target_N)
        return *terms, LossTerm(f"{self.NAME}_cross_entropy", total, TOKENS, self.params.cross_entropy)
