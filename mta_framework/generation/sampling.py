"""How responses are drawn, and what comes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn.

    Args:
        temperature: The logits are divided by it; 0 is greedy decoding.
        top_p: Nucleus sampling; 1 samples from the whole distribution. Without effect at temperature 0.
        max_new_tokens: Longest response, its end token included.
        batch_tokens: Tokens of prompts and responses that are held at once; one row is, however long.
    """

    temperature: float
    top_p: float
    max_new_tokens: int
    batch_tokens: int

    def rows(self, longest_prompt: int) -> int:
        """How many responses may be written at once where no prompt has more tokens than ``longest_prompt``."""
        return max(1, self.batch_tokens // (longest_prompt + self.max_new_tokens))


@dataclass(frozen=True)
class Generation:
    """A response: its token ids without the end token, its text without special tokens, whether it came to an end."""

    ids: tuple[int, ...]
    text: str
    finished: bool

    @classmethod
    def cut(cls, ids: Sequence[int], ends: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> Generation:
        """The response within what a model wrote: up to the first token of ``ends``."""
        end = next((position for position, token_id in enumerate(ids) if token_id in ends), None)
        kept = tuple(ids[:end])
        text = tokenizer.decode(list(kept), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return cls(kept, str(text), finished=end is not None)


def prompt_seeds(seed: int | str, count: int) -> list[int]:
    """A seed for each of ``count`` prompts, the same on every machine and with every version.

    Args:
        seed: A number, or any text that says what the responses are for: another one gives unrelated seeds.
        count: How many prompts there are. More of them leave the first seeds as they are.

    Returns:
        Numbers from 0 to 2^63 - 1.
    """
    digests = (hashlib.sha256(f"{seed}/{row}".encode()).digest() for row in range(count))
    return [int.from_bytes(digest[:8], "big") >> 1 for digest in digests]
