"""Writes responses in one batch that rows leave when they are finished, and others enter.

Shape suffixes: B live rows, U distinct prompts, T tokens that are read, C columns of the cache, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from mta_framework.generation.kv_cache import RowCache
from mta_framework.generation.limits import depends_on_batch_length
from mta_framework.generation.request import DecodingConfig, Request
from mta_framework.generation.token_sampling import choose

_SHARE_TO_REFILL = 8


def write_continuously(model: PreTrainedModel, rows: Sequence[Request], rules: DecodingConfig) -> Iterator[Request]:
    """Write all responses, and give each row when it is finished.

    At most ``Sampling.rows`` rows are live, or one where rows change each other (``depends_on_batch_length``).
    When an eighth
    of the places is free, waiting rows are read together and enter; rows with the same prompt that enter together are
    read once. Memory for the cache is allocated at once.

    Args:
        model: With a ``mergeable`` cache, in evaluation mode, without gradient.
        rows: Longest prompt first. Their ``ids`` are filled.
        rules: Of all of them.

    Raises:
        RunError: The model's logits are NaN or infinite.
    """
    longest = len(rows[0].prompt)
    columns = longest + rules.sampling.max_new_tokens
    places = 1 if depends_on_batch_length(model.config, columns) else min(rules.sampling.rows(longest), len(rows))
    batch = _Batch(model, rules, RowCache(places, columns))
    waiting = deque(rows)
    while waiting or batch.live:
        free = places - len(batch.live)
        if waiting and (not batch.live or free >= max(places // _SHARE_TO_REFILL, 1)):
            batch.enter([waiting.popleft() for _ in range(min(free, len(waiting)))])
        else:
            batch.step()
        yield from batch.leave()


class _Batch:
    def __init__(self, model: PreTrainedModel, rules: DecodingConfig, cache: RowCache):
        self.live: list[Request] = []
        self._model = model
        self._rules = rules
        self._cache = cache
        self._options = {"use_cache": True, "return_dict": True, "logits_to_keep": 1}
        names = inspect.signature(model.forward).parameters
        self._has_positions = "position_ids" in names
        if "logits_to_keep" not in names:
            del self._options["logits_to_keep"]

    def enter(self, rows: Sequence[Request]) -> None:
        """Read the prompts of new rows and write their first tokens."""
        numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(row.prompt for row in rows))}
        origins = [numbers[row.prompt] for row in rows]
        cache = DynamicCache()
        logits_UV = self._read([list(prompt) for prompt in numbers], [len(prompt) for prompt in numbers], cache)
        self._cache.enter(cache, origins)
        self._write(rows, logits_UV[origins])
        self.live += rows

    def step(self) -> None:
        """Read the last token of every live row and write the next."""
        self._cache.make_room(max(row.length for row in self.live))
        logits_BV = self._read(
            [row.ids[-1:] for row in self.live], [row.length + 1 for row in self.live], self._cache, self._cache.width
        )
        self._write(self.live, logits_BV)

    def leave(self) -> Iterator[Request]:
        """Take out the rows that are finished."""
        for place in reversed(range(len(self.live))):
            if self.live[place].finished(self._rules):
                self._cache.leave(place)
                yield self.live[place]
                self.live[place] = self.live[-1]
                self.live.pop()

    def _write(self, rows: Sequence[Request], logits_BV: Tensor) -> None:
        token_B = choose(logits_BV, self._rules.sampling, [row.stream for row in rows], self._rules.size)
        for row, token_id in zip(rows, token_B.tolist(), strict=True):
            row.ids.append(token_id)

    def _read(self, ids: Sequence[Sequence[int]], lengths: Sequence[int], cache: Cache, width: int = 0) -> Tensor:
        """Logits of the next token; ``lengths`` count what was read before, ``width`` is that of the cache."""
        device = self._model.device
        read = max(map(len, ids))
        padded = [[self._rules.padding] * (read - len(some)) + list(some) for some in ids]
        length_B1 = torch.tensor(lengths, device=device).unsqueeze(1)
        # Where each column's token stands in its row; padding stands before the first.
        position_BC = length_B1 - torch.arange(width + read, 0, -1, device=device)
        given = {"position_ids": position_BC[:, -read:].clamp(min=0)} if self._has_positions else {}
        output = self._model(
            input_ids=torch.tensor(padded, device=device),
            attention_mask=(position_BC >= 0).long(),
            past_key_values=cache,
            **given,
            **self._options,
        )
        logits_BV: Tensor = output.logits[:, -1]
        return logits_BV
