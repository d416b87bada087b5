"""Generates responses to prompts."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import nn
from tqdm.auto import tqdm

from mta_framework.distributed import processes
from mta_framework.errors import InputError
from mta_framework.generation.continuous_batching import write_continuously
from mta_framework.generation.isolation import isolated
from mta_framework.generation.kv_cache import mergeable
from mta_framework.generation.limits import end_ids, first_id, output_size, padding_ids, room_fault
from mta_framework.generation.request import DecodingConfig, Request
from mta_framework.generation.sampling import Generation, Sampling
from mta_framework.generation.static_batching import write_in_batches
from mta_framework.models.decoder import base_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def generate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[Sequence[int]],
    sampling: Sampling,
    seeds: Sequence[int],
    progress_label: str | None,
    done: Callable[[int, Generation], None] | None = None,
) -> list[Generation]:
    """Respond to every prompt.

    A response depends on the weights, its prompt, the sampling and its seed: not on the other prompts, their order or
    the batch size, but for the rounding of sums over more or less padding. It is made of the tokenizer's tokens alone,
    where the model's vocabulary is filled up with more ids. Longest prompts come first, so that memory runs out at
    once or never; a finished response leaves its place to a prompt that waits. Models whose caches cannot be taken
    apart (``mergeable``) respond in fixed batches of prompts of like length. Nothing of the model's stored generation
    settings counts but its end tokens. Random state, the mode of every module and those settings are the same
    afterwards as before. Runs in the caller's autocast context, without gradient.

    Args:
        model: A causal language model, PEFT-wrapped or not; it may be in the midst of training.
        tokenizer: Decodes, and names the end token.
        prompt_ids: Token ids without padding. An empty prompt starts from the tokenizer's first special token.
        sampling: Temperature and limits.
        seeds: One per prompt (``prompt_seeds``); without effect at temperature 0.
        progress_label: What the progress bar on standard error says, of which only the main process shows one; None:
            no bar.
        done: Called once for each prompt, with its number and response, as soon as that is finished, in no particular
            order. It must leave the model alone.

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
    rules = _rules(base, tokenizer, sampling)
    write = (
        write_continuously if mergeable(base, list(inspect.signature(base.forward).parameters)) else write_in_batches
    )
    found: dict[int, Generation] = {}
    hidden = progress_label is None or not processes().is_main_process
    with tqdm(total=len(prompt_ids), desc=progress_label, unit="prompt", disable=hidden) as bar, isolated(base):
        for row in write(base, _rows(prompt_ids, seeds, first_id(tokenizer)), rules):
            found[row.number] = Generation.cut(row.ids, rules.ends, tokenizer)
            if done is not None:
                done(row.number, found[row.number])
            bar.update()
    return [found[number] for number in range(len(prompt_ids))]


def _rules(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sampling: Sampling) -> DecodingConfig:
    ends = end_ids(model.generation_config, tokenizer)
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), 0)
    return DecodingConfig(sampling, ends, padding_ids(output_size(model), tokenizer).start, padding)


def _rows(prompt_ids: Sequence[Sequence[int]], seeds: Sequence[int], first: int) -> list[Request]:
    """Longest prompt first; equal prompts side by side, so that most are read together."""
    asked = enumerate(zip(prompt_ids, seeds, strict=True))
    rows = [Request(number, tuple(ids) or (first,), random.Random(seed)) for number, (ids, seed) in asked]
    return sorted(rows, key=lambda row: (-len(row.prompt), row.prompt))
