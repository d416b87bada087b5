"""A request for a response, with the state of its generation."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from mta_framework.generation.sampling_settings import Sampling


@dataclass(frozen=True)
class DecodingConfig:
    """Decoding configuration shared by all requests of a call.

    Args:
        sampling: Temperature and limits.
        ends: Ids of tokens that end a response.
        size: Number of ids of the tokenizer; further ids pad the model's vocabulary and are never chosen.
        padding: Id used for padding, which is masked.
        keep_log_probs: Whether the log-probabilities of generated tokens are kept.
    """

    sampling: Sampling
    ends: Sequence[int]
    size: int
    padding: int
    keep_log_probs: bool = False


@dataclass
class GenerationRequest:
    """A prompt, its random generator, and the tokens of its response so far.

    Args:
        index: Index of the prompt in the call.
        prompt: Token ids of the prompt, at least one.
        generator: Random generator of this request alone, from which one number per token is drawn.
        ids: Token ids generated so far.
        log_probs: Log-probability of each of ``ids`` when it was drawn; empty unless they are kept.
    """

    index: int
    prompt: tuple[int, ...]
    generator: random.Random
    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Number of tokens in the cache: all but the last generated one, which is the next input."""
        return len(self.prompt) + len(self.ids) - 1

    def finished(self, config: DecodingConfig) -> bool:
        """Return whether the response has ended, by an end token or at its maximum length."""
        return self.ids[-1] in config.ends or len(self.ids) == config.sampling.max_new_tokens
