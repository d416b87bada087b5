"""A response while it is being written."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from mta_framework.generation.sampling import Sampling


@dataclass(frozen=True)
class DecodingConfig:
    """What the rows of one call have in common.

    Args:
        sampling: How tokens are drawn, and how many at most.
        ends: Tokens that end a response.
        size: Number of the tokenizer's tokens; ids from there on fill up the vocabulary.
        padding: Stands where a row has no token; any id.
    """

    sampling: Sampling
    ends: Sequence[int]
    size: int
    padding: int


@dataclass
class Request:
    """A prompt, its own random numbers, and the tokens of the response so far.

    Args:
        number: Which of the prompts that were asked.
        prompt: Token ids, at least one.
        stream: Gives one number per token.
        ids: Tokens written.
    """

    number: int
    prompt: tuple[int, ...]
    stream: random.Random
    ids: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens that a model has read: all but the last that was written, which it reads next."""
        return len(self.prompt) + len(self.ids) - 1

    def finished(self, rules: DecodingConfig) -> bool:
        """Whether the last token ends it, or there may be no more of them."""
        return self.ids[-1] in rules.ends or len(self.ids) == rules.sampling.max_new_tokens
