"""Sampling settings, seeds of prompts, and generated responses."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Sampling:
    """Sampling settings of responses.

    Args:
        temperature: Divisor of the logits; 0 means greedy decoding.
        top_p: Probability mass of nucleus sampling; 1 samples from the whole distribution. Without effect at
            temperature 0.
        max_new_tokens: Maximum number of tokens of a response, its end token included.
        batch_tokens: Maximum number of tokens of prompts and responses in a batch, except for a single longer row.
    """

    temperature: float
    top_p: float
    max_new_tokens: int
    batch_tokens: int

    def batch_size(self, longest_prompt: int) -> int:
        """Return the number of responses to generate at once, at least 1.

        Args:
            longest_prompt: Number of tokens of the longest prompt.
        """
        return max(1, self.batch_tokens // (longest_prompt + self.max_new_tokens))


@dataclass(frozen=True)
class Generation:
    """A generated response.

    Args:
        ids: Token ids, without the end token.
        text: Text, without special tokens.
        finished: Whether the model generated an end token; False: the response was truncated at its maximum length.
        log_probs: Log-probability of each token in the distribution that it was drawn from, followed by that of the end
            token if only one token can end a response; empty where they were not kept.
    """

    ids: tuple[int, ...]
    text: str
    finished: bool
    log_probs: tuple[float, ...] = ()

    @classmethod
    def from_ids(
        cls,
        ids: Sequence[int],
        ends: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        log_probs: Sequence[float] = (),
    ) -> Generation:
        """Truncate generated token ids at the first end token and decode them.

        Args:
            ids: Token ids that a model generated.
            ends: Ids of tokens that end a response.
            tokenizer: Tokenizer that decodes.
            log_probs: Log-probability of each of ``ids``; empty: not kept.
        """
        end = next((position for position, token_id in enumerate(ids) if token_id in ends), None)
        kept = tuple(ids[:end])
        text = tokenizer.decode(list(kept), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        # Whichever token ended a response, it is trained with the same one: its log-probability may be another's.
        known = len(kept) + (end is not None and len(ends) == 1)
        return cls(kept, str(text), finished=end is not None, log_probs=tuple(log_probs[:known]))


def prompt_seeds(seed: int | str, count: int) -> list[int]:
    """Derive a seed for each of ``count`` prompts, the same on every machine and with every version.

    Args:
        seed: Number or string from which the seeds are derived; different values give unrelated seeds.
        count: Number of prompts. Increasing it leaves the first seeds unchanged.

    Returns:
        Seeds from 0 to 2^63 - 1.
    """
    digests = (hashlib.sha256(f"{seed}/{row}".encode()).digest() for row in range(count))
    return [int.from_bytes(digest[:8], "big") >> 1 for digest in digests]
