"""Generates responses to prompts with a live model."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn
from tqdm.auto import tqdm

from mta_framework.distributed import processes
from mta_framework.errors import InputError
from mta_framework.generation.continuous_batching import generate_continuous
from mta_framework.generation.isolation import isolated
from mta_framework.generation.kv_cache import supports_continuous_batching
from mta_framework.generation.limits import first_id, output_size, padding_ids, room_fault
from mta_framework.generation.request import DecodingConfig, GenerationRequest
from mta_framework.generation.sampling_settings import Generation, Sampling
from mta_framework.generation.static_batching import generate_static
from mta_framework.models.decoder import base_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def generate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    stop_ids: Sequence[int],
    prompt_ids: Sequence[Sequence[int]],
    sampling: Sampling,
    seeds: Sequence[int],
    progress_label: str | None,
    on_finished: Callable[[int, Generation], None] | None = None,
    *,
    keep_log_probs: bool = False,
) -> list[Generation]:
    """Generate a response to every prompt.

    A response depends on the weights, its prompt, the sampling and its seed, not on the other prompts, their order or
    the batch size, except for rounding with more or less padding. It consists of tokens of the tokenizer only, even if
    the vocabulary of the model is padded with further ids. Longest prompts come first, so that memory runs out at once
    or never; a finished response frees its slot for a waiting prompt. Models that do not support continuous batching
    (``supports_continuous_batching``) respond in static batches of prompts of similar length. The model's
    stored generation settings are not used. Random state, the mode of every module and the stored settings are restored
    afterwards. Generation runs in the caller's autocast context, without gradient.

    Args:
        model: A causal language model of transformers, or a PeftModel around one; it may be in training.
        tokenizer: Tokenizer of the model, which decodes responses.
        stop_ids: Ids of the tokens that end a response.
        prompt_ids: Token ids of each prompt, without padding. An empty prompt starts from the tokenizer's first special
            token.
        sampling: Temperature and limits.
        seeds: Seed of each prompt, as from ``prompt_seeds``; without effect at temperature 0.
        progress_label: Label of a progress bar on standard error, shown by the main process only; None: no bar.
        on_finished: Called once for each prompt, with its index and response, as soon as the response is finished, in
            no particular order. It must not modify the model.
        keep_log_probs: Whether to keep the log-probability of every generated token.

    Returns:
        One generation per prompt, in the order of the prompts; empty for no prompts.

    Raises:
        InputError: The longest prompt and ``max_new_tokens`` do not fit into the model's positions.
        RunError: The model's logits are NaN or infinite.
    """
    if not prompt_ids:
        return []
    base = base_of(model)
    fault = room_fault(base.config, max(map(len, prompt_ids)), sampling.max_new_tokens)
    if fault:
        raise InputError([fault])
    config = replace(_decoding_config(base, tokenizer, stop_ids, sampling), keep_log_probs=keep_log_probs)
    parameters = list(inspect.signature(base.forward).parameters)
    generate_requests = generate_continuous if supports_continuous_batching(base, parameters) else generate_static
    generations: dict[int, Generation] = {}
    hidden = progress_label is None or not processes().is_main_process
    with tqdm(total=len(prompt_ids), desc=progress_label, unit="prompt", disable=hidden) as bar, isolated(base):
        for row in generate_requests(base, _requests(prompt_ids, seeds, first_id(tokenizer)), config):
            generations[row.index] = Generation.from_ids(row.ids, config.ends, tokenizer, row.log_probs)
            if on_finished is not None:
                on_finished(row.index, generations[row.index])
            bar.update()
    return [generations[index] for index in range(len(prompt_ids))]


def _decoding_config(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int], sampling: Sampling
) -> DecodingConfig:
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(stop_ids), 0)
    return DecodingConfig(sampling, stop_ids, padding_ids(output_size(model), tokenizer).start, padding)


def _requests(prompt_ids: Sequence[Sequence[int]], seeds: Sequence[int], first: int) -> list[GenerationRequest]:
    """Requests with the longest prompt first, equal prompts adjacent, so that most of them are prefilled together."""
    pairs = enumerate(zip(prompt_ids, seeds, strict=True))
    requests = [GenerationRequest(index, tuple(ids) or (first,), random.Random(seed)) for index, (ids, seed) in pairs]
    return sorted(requests, key=lambda request: (-len(request.prompt), request.prompt))
