"""Random choice that depends on each prompt's own seed alone, among the tokens that there are.

Shape suffixes: B prompts of a batch, P tokens so far, R response tokens, V vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LogitsProcessor

from mta_framework.errors import RunError


class TokensOnly(LogitsProcessor):
    """Rules out the ids from ``size`` on, which fill up the vocabulary: the first processor of all."""

    def __init__(self, size: int):
        self._size = size

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores, minus infinity at what is ruled out."""
        tokens = scores[:, : self._size]
        return functional.pad(tokens, (0, scores.shape[1] - tokens.shape[1]), value=-torch.inf)


class SeededDraw(LogitsProcessor):
    """Chooses the next token of every prompt by a random number of that prompt: the last processor of all.

    The token is the first one at which the cumulated probability exceeds the number. Only the chosen token is left
    with a finite score, so that greedy decoding takes it. Torch's random state is neither used nor changed.

    Args:
        seeds: One for each prompt of the batch.
        prompt_width: P before the first token is chosen.
        max_new_tokens: R.
        device: Of the scores.
    """

    def __init__(self, seeds: Sequence[int], prompt_width: int, max_new_tokens: int, device: torch.device):
        streams = [random.Random(seed) for seed in seeds]
        numbers = [[stream.random() for _ in range(max_new_tokens)] for stream in streams]
        self._number_BR = torch.tensor(numbers, dtype=torch.float64).to(device)
        self._prompt_width = prompt_width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores that are 0 at the chosen token and minus infinity elsewhere.

        Raises:
            RunError: A score is NaN or infinite, or all are minus infinity.
        """
        number_B = self._number_BR[:, input_ids.shape[1] - self._prompt_width]
        token_B = pick(scores, number_B)
        return torch.full_like(scores, -torch.inf).scatter_(1, token_B.unsqueeze(1), 0.0)


def pick(score_BV: Tensor, number_B: Tensor) -> Tensor:
    """The first token at which the cumulated probability exceeds a number.

    Args:
        score_BV: Logits; minus infinity at tokens that are ruled out.
        number_B: float64 in [0, 1).

    Returns:
        token_B, int64; never one of probability zero.

    Raises:
        RunError: A row of scores is no distribution.
    """
    probability_BV = torch.softmax(score_BV.double(), dim=-1)
    # Parallel sums may fall by a rounding error from one token to the next: tokens of probability zero are left out
    # by name, and the total is the largest sum, which some other token reaches.
    sum_BV = probability_BV.cumsum(dim=-1).masked_fill_(probability_BV == 0, -1.0)
    total_B1 = sum_BV.amax(dim=-1, keepdim=True)
    if not bool((total_B1 > 0).all()):
        raise RunError("generation: the model's logits are NaN or infinite; no token can be drawn from them")
    return (sum_BV > number_B.unsqueeze(1) * total_B1).int().argmax(dim=-1)
