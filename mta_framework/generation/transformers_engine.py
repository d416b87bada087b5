"""Generates with the live models, by transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mta_framework.generation.engine import Engine
from mta_framework.generation.generate import generate
from mta_framework.generation.sampling import Generation, Sampling
from mta_framework.types import Responder

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

_PROMPTS = 256  # Enough to batch prompts of like length, and little to lose where a run is cut off.


class TransformersEngine(Engine):
    """Runs ``generate`` on the models themselves: nothing is copied, and nothing is ever out of date.

    Adapters, gradient checkpointing, training mode and the hooks of a ``StateReader`` may all be on; a training step
    may follow at once. Runs in the caller's autocast context.
    """

    name = "transformers"
    chunk_size = _PROMPTS

    def __init__(
        self,
        models: Mapping[Responder, nn.Module],
        tokenizer: PreTrainedTokenizerBase,
        max_new_tokens: int,
        batch_tokens: int,
    ):
        self._models = models
        self._tokenizer = tokenizer
        self._max_new_tokens = max_new_tokens
        self._batch_tokens = batch_tokens

    def _respond(
        self,
        by: Responder,
        prompt_ids: Sequence[Sequence[int]],
        seeds: Sequence[int],
        temperature: float,
        version: int,
    ) -> list[Generation]:
        sampling = Sampling(temperature, 1.0, self._max_new_tokens, self._batch_tokens)
        return generate(self._models[by], self._tokenizer, prompt_ids, sampling, seeds, progress_label=None)
