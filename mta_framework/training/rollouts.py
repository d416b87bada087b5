"""Writes responses during training: generation is shared among the processes, spans are parsed in the background."""

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
from mta_framework.data.response_encoding import ResponseEncoder, TokenResponse
from mta_framework.distributed import gather, processes, run_on_main, shard
from mta_framework.errors import RunError
from mta_framework.generation.engine import Engine
from mta_framework.generation.sampling_settings import Generation, Sampling, prompt_seeds
from mta_framework.interfaces import Rollouts
from mta_framework.models.sharding import gathered
from mta_framework.spans.cache import SpanCache
from mta_framework.spans.field_extraction import extract_by_field
from mta_framework.timers import PARSING, Stopwatch
from mta_framework.types import Example, Responder

_ENCODED_AT_ONCE = 32
"""Number of responses whose spans are parsed together."""

_CACHED_AT_ONCE = 256
"""Number of responses written to disk together: an interruption loses up to as many, and fewer make small files."""


class TrainingRollouts(Rollouts):
    """Writes responses with a generation engine (see ``Rollouts``).

    Args:
        engine: Engine that generates.
        models: Student and teacher by name, as far as they write responses.
        sampling: Limits of generation; its temperature is replaced by that of each call.
        encoder: Turns responses into training texts and parses their spans.
        examples: Training set.
        sampler: Order of the training set.
        seed: Seed of the run, from which every random stream is derived.
        total_steps: Optimiser steps of the whole training.
        folder: Folder of cached responses.
        settings: Settings that cached responses depend on besides model, temperature and prompt.
        span_cache: Cache of the spans of cached responses; None without alignment.
        autocast: dtype that the student computes in under autocast; None: that of its weights.
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
        """Number of finished steps; set by the trainer."""
        self.stopwatch = Stopwatch()
        """Measures the parts of a step; the trainer replaces it by its own."""
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
        """Respond to each prompt (see ``Rollouts``); a thread encodes finished responses while others are generated."""
        order = _longest_first(prompts)
        local = shard(order)
        seeds = prompt_seeds(f"{self.seed} {self.step} {by}", len(prompts))
        encoded: dict[tuple[int, ...], Future[list[Example]]] = {}
        with ThreadPoolExecutor(1) as worker:

            def encode(rows: tuple[int, ...], responses: list[TokenResponse]) -> None:
                answered = [prompts[local[row]] for row in rows]
                encoded[rows] = worker.submit(self._encoder.encode, answered, responses, by == "student")

            requests = [prompts[index] for index in local], [seeds[index] for index in local]
            self._write(*requests, by, temperature, encode, _ENCODED_AT_ONCE)
            with self.stopwatch.part(PARSING):
                texts = {
                    row: text for rows, job in encoded.items() for row, text in zip(rows, job.result(), strict=True)
                }
        in_order = [texts[row] for row in range(len(local))]
        by_prompt = dict(zip(order, gather(in_order, len(order)), strict=True))
        return [by_prompt[index] for index in range(len(prompts))]

    def respond_cached(
        self, prompts: Sequence[Example], by: Responder, temperature: float, model_state: str
    ) -> list[Example]:
        """Respond from disk (see ``Rollouts``); new responses are written as they come, so a resume continues there."""
        key = {**self._settings, "by": by, "model": model_state, "temperature": temperature}
        cache = ResponseCache(self._folder, json.dumps(key, sort_keys=True))
        distinct = list({prompt.prompt_ids.tobytes(): prompt for prompt in prompts}.values())
        missing = [prompt for prompt, known in zip(distinct, cache.lookup(distinct), strict=True) if known is None]
        processes().wait_for_everyone()  # all must have read before one of them adds
        if missing:
            self._fill(cache, missing, by, temperature, model_state)
            processes().wait_for_everyone()
        responses = [response for response in cache.lookup(prompts) if response is not None]
        if len(responses) < len(prompts):
            raise RunError(f"{cache.folder}: responses that were just written cannot be read. Is the disk full?")
        with self.stopwatch.part(PARSING), processes().main_process_first():  # the others find the spans in the cache
            texts = self._encoder.texts(prompts, responses)
            boundaries = [prompt.prompt_boundaries for prompt in prompts]
            spans = (
                extract_by_field(texts, boundaries, self._span_cache.spans) if self._span_cache is not None else None
            )
        return self._encoder.encode(prompts, responses, by == "student", spans)

    def _fill(
        self, cache: ResponseCache, prompts: Sequence[Example], by: Responder, temperature: float, model_state: str
    ) -> None:
        if model_state != self.model_state(by):
            raise RunError(
                f"{cache.folder}: responses of the {by} to {len(prompts)} prompts are missing, and its weights have "
                "changed since they were written. Restore the folder, or start the run again under another name."
            )
        local = [prompts[index] for index in shard(_longest_first(prompts))]
        # The seed depends on the prompt: its response must not depend on which other prompts are missing. It does not
        # depend on the weights, whose last bits change with the cut of batches, but on the step: the student responds
        # to the same prompt again in later intervals.
        stream = f"{self.seed} {by} {self.step if by == 'student' else 0}"
        seeds = [prompt_seeds(f"{stream} {prompt.prompt_ids.tobytes().hex()}", 1)[0] for prompt in local]

        def keep(rows: tuple[int, ...], responses: list[TokenResponse]) -> None:
            cache.add([local[row] for row in rows], responses)

        self._write(local, seeds, by, temperature, keep, _CACHED_AT_ONCE, f"Responses of the {by}")

    def _write(
        self,
        prompts: Sequence[Example],
        seeds: Sequence[int],
        by: Responder,
        temperature: float,
        take: Callable[[tuple[int, ...], list[TokenResponse]], None],
        size: int,
        progress_label: str | None = None,
    ) -> None:
        """Generate responses and pass them to ``take``, with their rows in ``prompts``, ``size`` at a time."""
        new: dict[int, TokenResponse] = {}

        def done(row: int, generation: Generation) -> None:
            log_probs = generation.log_probs if by == "student" else ()
            new[row] = TokenResponse(generation.ids, generation.finished, log_probs)
            if len(new) == size:
                take(tuple(new), list(new.values()))
                new.clear()

        ids = [prompt.prompt_ids.tolist() for prompt in prompts]
        request = ids, replace(self._sampling, temperature=temperature), seeds
        dtype = self._autocast if by == "student" else None
        autocast = torch.autocast(processes().device.type, dtype, enabled=dtype is not None)
        with gathered(self._models[by]), autocast:
            self._engine.generate(by, *request, version=self.step, progress_label=progress_label, on_finished=done)
        if new:
            take(tuple(new), list(new.values()))

    def has_ended(self, response: Example) -> bool:
        """Whether a response ended before its limit."""
        return self._encoder.has_ended(response)

    def model_state(self, by: Responder) -> str:
        """Compute a digest (see ``Rollouts``): SHA-256 of names, dtypes and values of all weights."""
        if by == "teacher" and self._teacher_state is not None:
            return self._teacher_state
        with gathered(self._models[by]):
            state = run_on_main(lambda: _digest(self._models[by]))
        if by == "teacher":
            self._teacher_state = state
        return state

    def upcoming(self, steps: int) -> list[Example]:
        """List the texts of the next steps (see ``Rollouts``)."""
        indices: dict[int, None] = {}
        step, end = self.step, min(self.step + steps, self._total_steps)
        while step < end:
            epoch, first = divmod(step, self.steps_per_epoch)
            batches = self._sampler.global_batches(epoch)[first : first + end - step]
            indices.update(dict.fromkeys(batches.ravel().tolist()))
            step += len(batches)
        return [self._examples[index] for index in indices]


def _longest_first(prompts: Sequence[Example]) -> list[int]:
    return sorted(range(len(prompts)), key=lambda index: -prompts[index].prompt_length)


@torch.no_grad()
def _digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())  # type: ignore[arg-type]
    return digest.hexdigest()
