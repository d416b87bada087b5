"""Chooses next tokens: by each row's own random number, among the tokens that there are.

Shape suffixes: B rows, V vocabulary, K blocks of it, W tokens of a block.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LogitsProcessor, TopPLogitsWarper

from mta_framework.errors import RunError
from mta_framework.generation.sampling import Sampling

_BLOCK = 256  # About the root of a vocabulary: as many blocks as tokens in each.


def choose(logits_BV: Tensor, sampling: Sampling, streams: Sequence[random.Random], size: int) -> Tensor:
    """The next token of every row.

    Args:
        logits_BV: Of any floating type; computed with in float32.
        sampling: Temperature and top-p.
        streams: Each row's own, from which one number is taken; untouched at temperature 0.
        size: Ids from here on fill up the vocabulary and are never chosen.

    Returns:
        token_B, int64.

    Raises:
        RunError: A row's logits are NaN or infinite.
    """
    score_BV = logits_BV[:, :size].float()
    if sampling.temperature == 0:
        largest_B, token_B = score_BV.max(dim=-1)
        _require_finite(largest_B)
        return token_B
    score_BV = score_BV / sampling.temperature
    if sampling.top_p < 1:
        score_BV = TopPLogitsWarper(sampling.top_p)(None, score_BV)  # type: ignore[arg-type]
    numbers = [stream.random() for stream in streams]
    return pick(score_BV, torch.tensor(numbers, dtype=torch.float64).to(score_BV.device))


class Choice(LogitsProcessor):
    """``choose`` as the only processor of transformers' greedy decoding: nothing but the chosen token is left."""

    def __init__(self, sampling: Sampling, streams: Sequence[random.Random], size: int):
        self._sampling = sampling
        self._streams = streams
        self._size = size

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores that are 0 at the chosen token and minus infinity elsewhere."""
        token_B = choose(scores, self._sampling, self._streams, self._size)
        return torch.full_like(scores, -torch.inf).scatter_(1, token_B.unsqueeze(1), 0.0)


def pick(score_BV: Tensor, number_B: Tensor) -> Tensor:
    """The first token at which the cumulated probability exceeds a number.

    What a row gets depends on that row alone. Sums are float64: first over blocks of tokens, then within the block
    that is met, which takes a quarter of the time of one sum over the whole vocabulary.

    Args:
        score_BV: float32 logits; minus infinity at tokens that are ruled out.
        number_B: float64 in [0, 1).

    Returns:
        token_B, int64; never one of probability zero.

    Raises:
        RunError: A row of scores is no distribution.
    """
    largest_B1 = score_BV.amax(dim=-1, keepdim=True)
    _require_finite(largest_B1)
    weight_BV = (score_BV - largest_B1).exp_()
    weight_BV = functional.pad(weight_BV, (0, -weight_BV.shape[1] % _BLOCK))
    weight_BKW = weight_BV.view(len(weight_BV), -1, _BLOCK)
    block_BK = weight_BKW.sum(dim=-1, dtype=torch.float64)
    sum_BK = block_BK.cumsum(dim=-1)
    rest_B = number_B * sum_BK.amax(dim=-1)
    block_B1 = _first_above(sum_BK, block_BK, rest_B).unsqueeze(1)
    rest_B = rest_B - (sum_BK - block_BK).gather(1, block_B1).squeeze(1)
    weight_BW = weight_BKW[torch.arange(len(weight_BKW), device=block_B1.device), block_B1.squeeze(1)].double()
    return block_B1.squeeze(1) * _BLOCK + _first_above(weight_BW.cumsum(dim=-1), weight_BW, rest_B)


def _first_above(sum_BN: Tensor, weight_BN: Tensor, number_B: Tensor) -> Tensor:
    # Parallel sums may fall by a rounding error from one entry to the next: entries of weight zero are left out by
    # name. Where rounding leaves every sum at or below the number, the largest sum is the one that is meant.
    sum_BN = sum_BN.masked_fill(weight_BN == 0, -1.0)
    found_BN = (sum_BN > number_B.unsqueeze(1)) | (sum_BN == sum_BN.amax(dim=-1, keepdim=True))
    return found_BN.int().argmax(dim=-1)


def _require_finite(largest: Tensor) -> None:
    if not bool(torch.isfinite(largest).all()):
        raise RunError("generation: the model's logits are NaN or infinite; no token can be chosen from them")
