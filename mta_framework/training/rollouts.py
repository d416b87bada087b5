"""Responses that are written during training: shared out among the processes, their spans parsed on the side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import nn
from tqdm.auto import tqdm

from mta_framework.data.batches import GroupedSampler
from mta_framework.data.pieces import parse_pieces
from mta_framework.data.response_cache import ResponseCache
from mta_framework.data.responses import Response, ResponseEncoder
from mta_framework.data.spans import SpanCache
from mta_framework.errors import RunError
from mta_framework.generation.engine import Engine
from mta_framework.generation.sampling import prompt_seeds
from mta_framework.interfaces import Rollouts
from mta_framework.processes import processes
from mta_framework.ranks import on_main, reunited, share
from mta_framework.types import Example, Responder

_KEPT_AT_ONCE = 256
"""Responses that are written to disk together: more are lost by an interruption, fewer make many small files."""


class TrainingRollouts(Rollouts):
    """What batch policies may ask for.

    Args:
        engine: Generates.
        models: The models that it generates with.
        encoder: Makes training texts of responses, and parses their spans.
        examples: The training set.
        sampler: Its order.
        seed: Of the run.
        total_steps: Optimiser steps of the whole training.
        folder: Where stored responses are kept.
        settings: What they depend on besides model, temperature and prompt.
        span_cache: Spans of stored responses; None without alignment.
        autocast: What the student computes in, where that isn't the dtype of its weights.
    """

    def __init__(
        self,
        engine: Engine,
        models: Mapping[Responder, nn.Module],
        encoder: ResponseEncoder,
        examples: Sequence[Example],
        sampler: GroupedSampler,
        *,
        seed: int,
        total_steps: int,
        folder: Path,
        settings: Mapping[str, object],
        span_cache: SpanCache | None,
        autocast: torch.dtype | None,
    ):
        self.seed = seed
        self.steps_per_epoch = sampler.steps_per_epoch
        self.step = 0
        """Steps that are done; set by the trainer."""
        self._engine = engine
        self._models = models
        self._encoder = encoder
        self._examples = examples
        self._sampler = sampler
        self._total_steps = total_steps
        self._folder = folder
        self._settings = {**settings, "seed": seed}
        self._span_cache = span_cache
        self._autocast = autocast
        self._teacher_state: str | None = None

    def respond(self, prompts: Sequence[Example], by: Responder, temperature: float) -> list[Example]:
        """See ``Rollouts``; a worker thread makes texts of one batch of responses while the next one is generated."""
        order = _longest_first(prompts)
        own = share(order)
        seeds = prompt_seeds(f"{self.seed} {self.step} {by}", len(prompts))
        with ThreadPoolExecutor(1) as worker:
            encoded = [
                worker.submit(self._encoder.encode, some, responses, by == "student")
                for some, responses in self._written(
                    [prompts[row] for row in own], [seeds[row] for row in own], by, temperature
                )
            ]
            written = [example for future in encoded for example in future.result()]
        found = dict(zip(order, reunited(written, len(order)), strict=True))
        return [found[row] for row in range(len(prompts))]

    def stored(self, prompts: Sequence[Example], by: Responder, temperature: float, state: str) -> list[Example]:
        """See ``Rollouts``; what is generated is on disk soon after, so an interrupted round goes on where it was."""
        identity = {**self._settings, "by": by, "model": state, "temperature": temperature}
        cache = ResponseCache(self._folder, json.dumps(identity, sort_keys=True))
        distinct = list({prompt.prompt_ids.tobytes(): prompt for prompt in prompts}.values())
        missing = [prompt for prompt, known in zip(distinct, cache.known(distinct), strict=True) if known is None]
        processes().wait_for_everyone()  # all must have looked before one of them adds
        if missing:
            self._fill(cache, missing, by, temperature, state)
            processes().wait_for_everyone()
        responses = [response for response in cache.known(prompts) if response is not None]
        if len(responses) < len(prompts):
            raise RunError(f"{cache.folder}: responses that were just written cannot be read; is the disk full?")
        with processes().main_process_first():  # the others find the spans in the cache
            texts, cuts = self._encoder.texts(prompts, responses), [prompt.prompt_cuts for prompt in prompts]
            spans = parse_pieces(texts, cuts, self._span_cache.spans) if self._span_cache is not None else None
        return self._encoder.encode(prompts, responses, by == "student", spans)

    def _fill(
        self, cache: ResponseCache, prompts: Sequence[Example], by: Responder, temperature: float, state: str
    ) -> None:
        if state != self.model_state(by):
            raise RunError(
                f"{cache.folder}: lacks responses of the {by} to {len(prompts)} prompts, and its weights have changed "
                "since they were written. Put the folder back, or start the run anew under another name."
            )
        own = [prompts[row] for row in share(_longest_first(prompts))]
        # By the prompt itself: the response must not depend on which other prompts are still missing. Not by the
        # weights, whose last bits another cut of the batches changes. Only the student is asked again, at other steps.
        drawn = f"{self.seed} {by} {self.step if by == 'student' else 0}"
        seeds = [prompt_seeds(f"{drawn} {prompt.prompt_ids.tobytes().hex()}", 1)[0] for prompt in own]
        new: list[tuple[Example, Response]] = []
        bar = tqdm(
            total=len(own), desc=f"Responses of the {by}", unit="prompt", disable=not processes().is_main_process
        )
        with bar:
            for some, responses in self._written(own, seeds, by, temperature):
                new += zip(some, responses, strict=True)
                bar.update(len(some))
                if len(new) >= _KEPT_AT_ONCE:
                    cache.add(*zip(*new, strict=True))
                    new = []
            if new:
                cache.add(*zip(*new, strict=True))

    def _written(
        self, prompts: Sequence[Example], seeds: Sequence[int], by: Responder, temperature: float
    ) -> Iterator[tuple[Sequence[Example], list[Response]]]:
        size = self._engine.chunk_size
        for first in range(0, len(prompts), size):
            some = prompts[first : first + size]
            ids = [prompt.prompt_ids.tolist() for prompt in some]
            lower = self._autocast if by == "student" else None
            with torch.autocast(processes().device.type, lower, enabled=lower is not None):
                generations = self._engine.generate(by, ids, seeds[first : first + size], temperature, self.step)
            yield some, [Response(generation.ids, generation.finished) for generation in generations]

    def model_state(self, by: Responder) -> str:
        """See ``Rollouts``: SHA-256 over names, types and values of all weights."""
        if by == "student":
            return on_main(lambda: _digest(self._models[by]))
        if self._teacher_state is None:
            self._teacher_state = on_main(lambda: _digest(self._models[by]))
        return self._teacher_state

    def upcoming(self, steps: int) -> list[Example]:
        """See ``Rollouts``."""
        rows: dict[int, None] = {}
        step, end = self.step, min(self.step + steps, self._total_steps)
        while step < end:
            epoch, first = divmod(step, self.steps_per_epoch)
            some = self._sampler.global_batches(epoch)[first : first + end - step]
            rows.update(dict.fromkeys(some.ravel().tolist()))
            step += len(some)
        return [self._examples[row] for row in rows]


def _longest_first(prompts: Sequence[Example]) -> list[int]:
    return sorted(range(len(prompts)), key=lambda row: -prompts[row].prompt_length)


@torch.no_grad()
def _digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())  # type: ignore[arg-type]
    return digest.hexdigest()
