"""Generates responses to prompts in batches.

Shape suffixes: B prompts of a batch, P prompt tokens (padded on the left), R response tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import GenerationConfig, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from mta_framework.errors import InputError
from mta_framework.generation.draws import SeededDraw, TokensOnly
from mta_framework.generation.isolation import isolated
from mta_framework.generation.limits import end_ids, first_id, padding_ids, room_fault
from mta_framework.generation.sampling import Generation, Sampling
from mta_framework.models.decoder import base_of
from mta_framework.processes import processes

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def generate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[Sequence[int]],
    sampling: Sampling,
    seeds: Sequence[int],
    progress_label: str | None,
) -> list[Generation]:
    """Respond to every prompt.

    A response depends on the weights, its prompt, the sampling and its seed: not on the other prompts, their order or
    the batch size, but for the rounding of sums over more or less padding. It is made of the tokenizer's tokens alone,
    where the model's vocabulary is filled up with more ids. Prompts are batched by length, longest first, so that
    memory runs out at once or never. Nothing of the model's stored generation settings counts but its end tokens.
    Random state, the mode of every module and those settings are the same afterwards as before. Runs in the caller's
    autocast context, without gradient.

    Args:
        model: A causal language model, PEFT-wrapped or not; it may be in the midst of training.
        tokenizer: Decodes, and names the end token.
        prompt_ids: Token ids without padding. An empty prompt starts from the tokenizer's first special token.
        sampling: Temperature and limits.
        seeds: One per prompt (``prompt_seeds``); without effect at temperature 0.
        progress_label: What the progress bar on standard error says, of which only the main process shows one; None:
            no bar.

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
    ends, padding = end_ids(base, tokenizer), padding_ids(base, tokenizer)
    config = _configuration(tokenizer, sampling, ends)
    rows = list(zip([list(ids) or [first_id(tokenizer)] for ids in prompt_ids], seeds, strict=True))
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row][0]))
    responses: dict[int, list[int]] = {}
    hidden = progress_label is None or not processes().is_main_process
    with tqdm(total=len(rows), desc=progress_label, unit="prompt", disable=hidden) as bar, isolated(base):
        size = sampling.rows(len(rows[order[0]][0]))
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            written = _respond(base, [rows[row] for row in chosen], sampling, config, padding.start)
            responses.update(zip(chosen, written, strict=True))
            bar.update(len(chosen))
    return [Generation.cut(responses[row], ends, tokenizer) for row in range(len(rows))]


def _configuration(tokenizer: PreTrainedTokenizerBase, sampling: Sampling, ends: Sequence[int]) -> GenerationConfig:
    padding = tokenizer.pad_token_id
    return GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=list(ends) or None,
        pad_token_id=padding if padding is not None else next(iter(ends), 0),
        use_cache=True,
        do_sample=False,
    )


def _respond(
    model: PreTrainedModel,
    rows: Sequence[tuple[Sequence[int], int]],
    sampling: Sampling,
    config: GenerationConfig,
    tokens: int,
) -> list[list[int]]:
    input_ids_BP, attention_mask_BP = _padded([prompt for prompt, _ in rows], config.pad_token_id)
    width = input_ids_BP.shape[1]
    output_BPR: Tensor = model.generate(  # type: ignore[operator, assignment]
        input_ids=input_ids_BP.to(model.device),
        attention_mask=attention_mask_BP.to(model.device),
        generation_config=config,
        logits_processor=_processors([seed for _, seed in rows], sampling, width, tokens, model.device),
    )
    return output_BPR[:, width:].tolist()


def _processors(
    seeds: Sequence[int], sampling: Sampling, width: int, tokens: int, device: torch.device
) -> LogitsProcessorList:
    processors = LogitsProcessorList([TokensOnly(tokens)])
    if sampling.temperature == 0:
        return processors
    processors.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_p < 1:
        processors.append(TopPLogitsWarper(sampling.top_p))
    processors.append(SeededDraw(seeds, width, sampling.max_new_tokens, device))
    return processors


def _padded(prompts: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    width = max(map(len, prompts))
    ids_BP = torch.full((len(prompts), width), pad_token_id, dtype=torch.int64)
    mask_BP = torch.zeros_like(ids_BP)
    for row, ids in enumerate(prompts):
        ids_BP[row, width - len(ids) :] = torch.tensor(ids)
        mask_BP[row, width - len(ids) :] = 1
    return ids_BP, mask_BP
