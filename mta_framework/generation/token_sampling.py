"""Chooses next tokens, each row by its own random generator, among the tokens of the tokenizer.

Shape suffixes: B rows, V vocabulary, K blocks of it, W tokens of a block.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LogitsProcessor, TopPLogitsWarper

from mta_framework.chunked_loss import widest_dtype
from mta_framework.errors import RunError
from mta_framework.generation.sampling_settings import Sampling

_BLOCK = 256  # About the root of a vocabulary: as many blocks as tokens in each.


def sample_tokens(logits_BV: Tensor, sampling: Sampling, generators: Sequence[random.Random], size: int) -> Tensor:
    """Choose the next token of every row, by sampling or greedily.

    Args:
        logits_BV: Logits of any floating dtype; computation is in float32.
        sampling: Temperature and top-p.
        generators: Random generator of each row, from which one number is drawn; unused at temperature 0.
        size: Number of ids of the tokenizer; further ids pad the vocabulary and are never chosen.

    Returns:
        The chosen ids, token_B, int64.

    Raises:
        RunError: The logits of a row are NaN or infinite.
    """
    if sampling.temperature == 0:
        largest_B, token_B = logits_BV[:, :size].float().max(dim=-1)
        _require_finite(largest_B)
        return token_B
    score_BV = _scores(logits_BV, sampling, size)
    uniforms = [generator.random() for generator in generators]
    uniform_B = torch.tensor(uniforms, dtype=widest_dtype(score_BV.device), device=score_BV.device)
    return sample_inverse_cdf(score_BV, uniform_B)


def log_probs_of(token_B: Tensor, logits_BV: Tensor, sampling: Sampling, size: int) -> Tensor:
    """Compute the log-probability of each row's chosen token in the distribution that ``sample_tokens`` draws from.

    Args:
        token_B: The chosen ids, int64.
        logits_BV: Logits of any floating dtype; computation is in float32.
        sampling: Temperature and top-p.
        size: Number of ids of the tokenizer; further ids pad the vocabulary and are never chosen.

    Returns:
        log_prob_B, float32, in nats; 0 at temperature 0.
    """
    if sampling.temperature == 0:
        return torch.zeros_like(token_B, dtype=torch.float32)
    log_prob_BV = _scores(logits_BV, sampling, size).log_softmax(dim=-1)
    return log_prob_BV.gather(1, token_B.unsqueeze(1)).squeeze(1)


def _scores(logits_BV: Tensor, sampling: Sampling, size: int) -> Tensor:
    """Logits of the distribution that tokens are drawn from, float32; minus infinity at tokens outside top-p."""
    score_BV = logits_BV[:, :size].float() / sampling.temperature
    if sampling.top_p < 1:
        score_BV = TopPLogitsWarper(sampling.top_p)(None, score_BV)  # type: ignore[arg-type]
    return score_BV


class SamplingProcessor(LogitsProcessor):
    """Logits processor that lets transformers' greedy decoding choose the token of ``sample_tokens``.

    Args:
        sampling: Temperature and top-p.
        generators: Random generator of each row.
        size: Number of ids of the tokenizer; further ids are never chosen.
        keep_log_probs: Whether to compute the log-probabilities of chosen tokens.

    Attributes:
        log_probs: log_prob_B of the tokens chosen at each step so far; empty unless they are computed.
    """

    def __init__(
        self, sampling: Sampling, generators: Sequence[random.Random], size: int, keep_log_probs: bool = False
    ):
        self.log_probs: list[Tensor] = []
        self._sampling = sampling
        self._generators = generators
        self._size = size
        self._keep_log_probs = keep_log_probs

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores that are 0 at the chosen token and minus infinity elsewhere."""
        token_B = sample_tokens(scores, self._sampling, self._generators, self._size)
        if self._keep_log_probs:
            self.log_probs.append(log_probs_of(token_B, scores, self._sampling, self._size))
        return torch.full_like(scores, -torch.inf).scatter_(1, token_B.unsqueeze(1), 0.0)


def sample_inverse_cdf(score_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """Sample by inverting the cumulative distribution: the first token whose cumulative probability exceeds a number.

    The result of a row depends on that row alone. Sums are float64 (float32 on MPS): first over blocks of tokens, then
    within one block, which takes a quarter of the time of one sum over the whole vocabulary.

    Args:
        score_BV: Logits, float32; minus infinity at excluded tokens.
        uniform_B: Uniform random numbers in [0, 1), in the dtype of the sums (``widest_dtype``).

    Returns:
        The sampled ids, token_B, int64; never one of probability zero.

    Raises:
        RunError: A row of scores contains NaN, plus infinity, or nothing but minus infinity.
    """
    largest_B1 = score_BV.amax(dim=-1, keepdim=True)
    _require_finite(largest_B1)
    weight_BV = (score_BV - largest_B1).exp_()
    weight_BV = functional.pad(weight_BV, (0, -weight_BV.shape[1] % _BLOCK))
    weight_BKW = weight_BV.view(len(weight_BV), -1, _BLOCK)
    block_BK = weight_BKW.sum(dim=-1, dtype=uniform_B.dtype)
    sum_BK = block_BK.cumsum(dim=-1)
    rest_B = uniform_B * sum_BK.amax(dim=-1)
    block_B1 = _first_above(sum_BK, block_BK, rest_B).unsqueeze(1)
    rest_B = rest_B - (sum_BK - block_BK).gather(1, block_B1).squeeze(1)
    row_B = torch.arange(len(weight_BKW), device=block_B1.device)
    weight_BW = weight_BKW[row_B, block_B1.squeeze(1)].to(uniform_B.dtype)
    return block_B1.squeeze(1) * _BLOCK + _first_above(weight_BW.cumsum(dim=-1), weight_BW, rest_B)


def _first_above(sum_BN: Tensor, weight_BN: Tensor, uniform_B: Tensor) -> Tensor:
    # Parallel sums may decrease by a rounding error from one entry to the next, so entries of weight zero are excluded
    # explicitly. Where rounding leaves every sum at or below the number, the largest sum is taken.
    sum_BN = sum_BN.masked_fill(weight_BN == 0, -1.0)
    above_BN = (sum_BN > uniform_B.unsqueeze(1)) | (sum_BN == sum_BN.amax(dim=-1, keepdim=True))
    return above_BN.int().argmax(dim=-1)


def _require_finite(largest: Tensor) -> None:
    if not bool(torch.isfinite(largest).all()):
        raise RunError("generation: the model's logits are NaN or infinite; no token can be chosen from them")
