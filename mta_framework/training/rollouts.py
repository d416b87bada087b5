"""Responses that are written during training: shared out among the processes, their spans parsed on the side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from mta_framework.data.batches import GroupedSampler
from mta_framework.data.response_cache import ResponseCache
from mta_framework.data.responses import Response, ResponseEncoder
from mta_framework.distributed import gather, processes, run_on_main, shard
from mta_framework.errors import RunError
from mta_framework.generation.engine import Engine
from mta_framework.generation.sampling import Generation, Sampling, prompt_seeds
from mta_framework.interfaces import Rollouts
from mta_framework.spans.cache import SpanCache
from mta_framework.spans.field_extraction import extract_by_field
from mta_framework.timers import PARSING, Stopwatch
from mta_framework.types import Example, Responder

_ENCODED_AT_ONCE = 32
"""Responses whose spans are parsed together."""

_KEPT_AT_ONCE = 256
"""Responses that are written to disk together: more are lost by an interruption, fewer make many small files."""


class TrainingRollouts(Rollouts):
    """What batch policies may ask for.

    Args:
        engine: Generates.
        models: The models that it generates with.
        sampling: Limits; each request has its own temperature.
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
        models: Mapping[str, nn.Module],
        sampling: Sampling,
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
        self.stopwatch = Stopwatch()
        """Of the steps; the trainer sets its own."""
        self._engine = engine
        self._models = models
        self._sampling = sampling
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
        """See ``Rollouts``; a worker thread makes texts of some responses while the next ones are generated."""
        order = _longest_first(prompts)
        own = shard(order)
        seeds = prompt_seeds(f"{self.seed} {self.step} {by}", len(prompts))
        encoded: dict[tuple[int, ...], Future[list[Example]]] = {}
        with ThreadPoolExecutor(1) as worker:

            def encode(rows: tuple[int, ...], responses: list[Response]) -> None:
                some = [prompts[own[row]] for row in rows]
                encoded[rows] = worker.submit(self._encoder.encode, some, responses, by == "student")

            asked = [prompts[row] for row in own], [seeds[row] for row in own]
            self._write(*asked, by, temperature, encode, _ENCODED_AT_ONCE)
            with self.stopwatch.part(PARSING):
                written = {
                    row: text for rows, made in encoded.items() for row, text in zip(rows, made.result(), strict=True)
                }
        in_order = [written[row] for row in range(len(own))]
        found = dict(zip(order, gather(in_order, len(order)), strict=True))
        return [found[row] for row in range(len(prompts))]

    def respond_cached(
        self, prompts: Sequence[Example], by: Responder, temperature: float, state: str
    ) -> list[Example]:
        """See ``Rollouts``; what is generated is on disk soon after, so an interrupted round goes on where it was."""
        identity = {**self._settings, "by": by, "model": state, "temperature": temperature}
        cache = ResponseCache(self._folder, json.dumps(identity, sort_keys=True))
        distinct = list({prompt.prompt_ids.tobytes(): prompt for prompt in prompts}.values())
        missing = [prompt for prompt, known in zip(distinct, cache.lookup(distinct), strict=True) if known is None]
        processes().wait_for_everyone()  # all must have looked before one of them adds
        if missing:
            self._fill(cache, missing, by, temperature, state)
            processes().wait_for_everyone()
        responses = [response for response in cache.lookup(prompts) if response is not None]
        if len(responses) < len(prompts):
            raise RunError(f"{cache.folder}: responses that were just written cannot be read; is the disk full?")
        with self.stopwatch.part(PARSING), processes().main_process_first():  # the others find the spans in the cache
            texts, cuts = self._encoder.texts(prompts, responses), [prompt.prompt_boundaries for prompt in prompts]
            spans = extract_by_field(texts, cuts, self._span_cache.spans) if self._span_cache is not None else None
        return self._encoder.encode(prompts, responses, by == "student", spans)

    def _fill(
        self, cache: ResponseCache, prompts: Sequence[Example], by: Responder, temperature: float, state: str
    ) -> None:
        if state != self.model_state(by):
            raise RunError(
                f"{cache.folder}: lacks responses of the {by} to {len(prompts)} prompts, and its weights have changed "
                "since they were written. Put the folder back, or start the run anew under another name."
            )
        own = [prompts[row] for row in shard(_longest_first(prompts))]
        # By the prompt itself: the response must not depend on which other prompts are still missing. Not by the
        # weights, whose last bits another cut of the batches changes. Only the student is asked again, at other steps.
        drawn = f"{self.seed} {by} {self.step if by == 'student' else 0}"
        seeds = [prompt_seeds(f"{drawn} {prompt.prompt_ids.tobytes().hex()}", 1)[0] for prompt in own]

        def keep(rows: tuple[int, ...], responses: list[Response]) -> None:
            cache.add([own[row] for row in rows], responses)

        self._write(own, seeds, by, temperature, keep, _KEPT_AT_ONCE, f"Responses of the {by}")

    def _write(
        self,
        prompts: Sequence[Example],
        seeds: Sequence[int],
        by: Responder,
        temperature: float,
        take: Callable[[tuple[int, ...], list[Response]], None],
        size: int,
        progress_label: str | None = None,
    ) -> None:
        """Generate; ``take`` gets rows and responses, ``size`` of them as soon as so many are finished."""
        new: dict[int, Response] = {}

        def done(row: int, generation: Generation) -> None:
            new[row] = Response(generation.ids, generation.finished)
            if len(new) == size:
                take(tuple(new), list(new.values()))
                new.clear()

        ids = [prompt.prompt_ids.tolist() for prompt in prompts]
        asked = ids, replace(self._sampling, temperature=temperature), seeds
        lower = self._autocast if by == "student" else None
        with torch.autocast(processes().device.type, lower, enabled=lower is not None):
            self._engine.generate(by, *asked, version=self.step, progress_label=progress_label, on_finished=done)
        if new:
            take(tuple(new), list(new.values()))

    def model_state(self, by: Responder) -> str:
        """See ``Rollouts``: SHA-256 over names, types and values of all weights."""
        if by == "student":
            return run_on_main(lambda: _digest(self._models[by]))
        if self._teacher_state is None:
            self._teacher_state = run_on_main(lambda: _digest(self._models[by]))
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
