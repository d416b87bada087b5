"""Continuous batching: finished rows leave the batch at once, and waiting requests take their slots.

Shape suffixes: B live rows, U distinct prompts, T tokens per forward pass, C columns of the cache, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from mta_framework.generation.kv_cache import RowCache
from mta_framework.generation.left_padding import pad_left
from mta_framework.generation.limits import depends_on_batch_length
from mta_framework.generation.request import DecodingConfig, GenerationRequest
from mta_framework.generation.token_sampling import log_probs_of, sample_tokens

_REFILL_FRACTION = 8
"""Waiting requests enter when one slot in so many is free."""


def generate_continuous(
    model: PreTrainedModel, rows: Sequence[GenerationRequest], config: DecodingConfig
) -> Iterator[GenerationRequest]:
    """Generate the responses to all requests by continuous batching.

    At most ``Sampling.batch_size`` rows are live, or one where rows influence each other
    (``depends_on_batch_length``). When an eighth of the slots is free, waiting requests are prefilled together and
    enter the batch; equal prompts that enter together are prefilled once. The memory of the cache is allocated once.

    Args:
        model: Model in evaluation mode for which ``supports_continuous_batching`` holds; called without gradient.
        rows: Requests, longest prompt first. Generated tokens are appended to their ``ids``.
        config: Decoding configuration of all requests.

    Yields:
        Each request when its response is finished.

    Raises:
        RunError: The model's logits are NaN or infinite.
    """
    longest = len(rows[0].prompt)
    columns = longest + config.sampling.max_new_tokens
    slots = 1 if depends_on_batch_length(model.config, columns) else min(config.sampling.batch_size(longest), len(rows))
    batch = _Batch(model, config, RowCache(slots, columns))
    waiting = deque(rows)
    while waiting or batch.live:
        free = slots - len(batch.live)
        if waiting and (not batch.live or free >= max(slots // _REFILL_FRACTION, 1)):
            batch.add([waiting.popleft() for _ in range(min(free, len(waiting)))])
        else:
            batch.step()
        yield from batch.remove_finished()


class _Batch:
    def __init__(self, model: PreTrainedModel, config: DecodingConfig, cache: RowCache):
        self.live: list[GenerationRequest] = []
        self._model = model
        self._config = config
        self._cache = cache
        self._options = {"use_cache": True, "return_dict": True, "logits_to_keep": 1}
        names = inspect.signature(model.forward).parameters
        self._has_positions = "position_ids" in names
        if "logits_to_keep" not in names:
            del self._options["logits_to_keep"]

    def add(self, rows: Sequence[GenerationRequest]) -> None:
        """Prefill the prompts of new rows and choose their first tokens."""
        prompt_indices = {prompt: index for index, prompt in enumerate(dict.fromkeys(row.prompt for row in rows))}
        sources = [prompt_indices[row.prompt] for row in rows]
        cache = DynamicCache()
        logits_UV = self._forward(list(prompt_indices), [len(prompt) for prompt in prompt_indices], cache)
        self._cache.add(cache, sources)
        self._append(rows, logits_UV[sources])
        self.live += rows

    def step(self) -> None:
        """Run the last token of every live row through the model and choose the next."""
        self._cache.shrink(max(row.length for row in self.live))
        logits_BV = self._forward(
            [row.ids[-1:] for row in self.live], [row.length + 1 for row in self.live], self._cache, self._cache.width
        )
        self._append(self.live, logits_BV)

    def remove_finished(self) -> Iterator[GenerationRequest]:
        """Remove finished rows from the batch and yield them."""
        for slot in reversed(range(len(self.live))):
            if self.live[slot].finished(self._config):
                self._cache.remove(slot)
                yield self.live[slot]
                self.live[slot] = self.live[-1]
                self.live.pop()

    def _append(self, rows: Sequence[GenerationRequest], logits_BV: Tensor) -> None:
        token_B = sample_tokens(logits_BV, self._config.sampling, [row.generator for row in rows], self._config.size)
        for row, token_id in zip(rows, token_B.tolist(), strict=True):
            row.ids.append(token_id)
        if self._config.keep_log_probs:
            log_prob_B = log_probs_of(token_B, logits_BV, self._config.sampling, self._config.size)
            for row, log_prob in zip(rows, log_prob_B.tolist(), strict=True):
                row.log_probs.append(log_prob)

    def _forward(self, ids: Sequence[Sequence[int]], lengths: Sequence[int], cache: Cache, width: int = 0) -> Tensor:
        """Logits of the next token; ``lengths`` include the cached tokens, ``width`` is the columns of the cache."""
        device = self._model.device
        new = max(map(len, ids))
        length_B1 = torch.tensor(lengths, device=device).unsqueeze(1)
        # Position of each column's token in its row; negative on padding.
        position_BC = length_B1 - torch.arange(width + new, 0, -1, device=device)
        positions = {"position_ids": position_BC[:, -new:].clamp(min=0)} if self._has_positions else {}
        output = self._model(
            input_ids=pad_left(ids, self._config.padding).to(device),
            attention_mask=(position_BC >= 0).long(),
            past_key_values=cache,
            **positions,
            **self._options,
        )
        logits_BV: Tensor = output.logits[:, -1]
        return logits_BV
