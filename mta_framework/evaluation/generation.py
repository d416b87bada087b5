"""Generates responses to prompts in batches.

Shape suffixes: B prompts of a batch, P prompt tokens (padded on the left), R response tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm
from transformers import GenerationConfig

from mta_framework.errors import Fault, InputError
from mta_framework.evaluation.isolation import in_evaluation_mode, seeded, without_stored_settings
from mta_framework.processes import processes

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn.

    Args:
        temperature: The logits are divided by it; 0 is greedy decoding.
        top_p: Nucleus sampling; 1 samples from the whole distribution. Without effect at temperature 0.
        max_new_tokens: Longest response, its end token included.
        batch_size: Prompts per batch.
    """

    temperature: float
    top_p: float
    max_new_tokens: int
    batch_size: int


@dataclass(frozen=True)
class Generation:
    """A response: its token ids without the end token, its text without special tokens, whether it came to an end."""

    ids: tuple[int, ...]
    text: str
    finished: bool


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[Sequence[int]],
    sampling: Sampling,
    seed: int,
    progress_label: str,
) -> list[Generation]:
    """Respond to every prompt.

    Prompts are batched by length, longest first, so that memory runs out at once or never. Nothing of the model's
    stored generation settings counts but its end tokens. The random state of torch, the mode of every module and
    those settings are the same afterwards as before. Runs in the caller's autocast context, without gradient.

    Args:
        model: A causal language model, PEFT-wrapped or not.
        tokenizer: Decodes, and names the end token.
        prompt_ids: Token ids without padding. An empty prompt starts from the tokenizer's first special token.
        sampling: Temperature and limits.
        seed: The same seed, prompts and sampling give the same responses.
        progress_label: What the progress bar on standard error says; only the main process shows one.

    Returns:
        One generation per prompt, in the order of the prompts; empty for no prompts.

    Raises:
        InputError: The longest prompt and ``max_new_tokens`` do not fit into the model's positions.
    """
    if not prompt_ids:
        return []
    bare: Any = getattr(model, "get_base_model", lambda: model)()
    fault = room_fault(bare.config, max(map(len, prompt_ids)), sampling.max_new_tokens)
    if fault:
        raise InputError([fault])
    ends = end_ids(bare, tokenizer)
    config = _configuration(tokenizer, sampling, ends)
    prompts = [list(ids) or [_first_id(tokenizer)] for ids in prompt_ids]
    order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
    responses: dict[int, list[int]] = {}
    bar = tqdm(total=len(prompts), desc=progress_label, unit="prompt", disable=not processes().is_main_process)
    with (
        bar,
        seeded(seed, bare.device),
        in_evaluation_mode(bare),
        without_stored_settings(bare),
        torch.inference_mode(),
    ):
        for start in range(0, len(order), sampling.batch_size):
            rows = order[start : start + sampling.batch_size]
            responses.update(zip(rows, _respond(bare, [prompts[row] for row in rows], config), strict=True))
            bar.update(len(rows))
    return [_generation(responses[row], tokenizer, ends) for row in range(len(prompts))]


def room_fault(config: PretrainedConfig, prompt_length: int, max_new_tokens: int) -> Fault | None:
    """The fault of asking for more positions than the model has; None if there is room (or no stated limit)."""
    room = getattr(config.get_text_config(), "max_position_embeddings", None)
    if room is None or prompt_length + max_new_tokens <= room:
        return None
    return Fault(
        "evaluation.max_new_tokens",
        f"a prompt of {prompt_length} tokens and a response of {max_new_tokens} do not fit into the model's "
        f"{room} positions (got {max_new_tokens})",
        f"prompt and response may have {room} tokens together",
        "Lower evaluation.max_new_tokens or evaluation.max_prompt_length.",
    )


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end a response: the tokenizer's, and those of the model that are special to the tokenizer.

    Chat models often stop at several tokens and only the model's stored settings name them all; but the default of a
    freshly initialised model may be an ordinary word of its tokenizer.
    """
    stored = model.generation_config.eos_token_id if model.generation_config is not None else None
    candidates = stored if isinstance(stored, list) else [stored]
    special = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    ends = special.intersection(candidates)
    return sorted(ends if tokenizer.eos_token_id is None else ends | {tokenizer.eos_token_id})


def _configuration(tokenizer: PreTrainedTokenizerBase, sampling: Sampling, ends: Sequence[int]) -> GenerationConfig:
    padding = tokenizer.pad_token_id
    drawn: dict[str, Any] = {"do_sample": False}
    if sampling.temperature > 0:
        # transformers reads an open top_k as 50; 0 is off.
        drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    return GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=list(ends) or None,
        pad_token_id=padding if padding is not None else next(iter(ends), 0),
        use_cache=True,
        **drawn,
    )


def _first_id(tokenizer: PreTrainedTokenizerBase) -> int:
    candidates = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    return next((token_id for token_id in candidates if token_id is not None), 0)


def _respond(model: PreTrainedModel, prompts: Sequence[Sequence[int]], config: GenerationConfig) -> list[list[int]]:
    input_ids_BP, attention_mask_BP = _padded(prompts, config.pad_token_id)
    output_BPR: Tensor = model.generate(  # type: ignore[operator, assignment]
        input_ids=input_ids_BP.to(model.device),
        attention_mask=attention_mask_BP.to(model.device),
        generation_config=config,
    )
    return output_BPR[:, input_ids_BP.shape[1] :].tolist()


def _padded(prompts: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    width = max(map(len, prompts))
    ids_BP = torch.full((len(prompts), width), pad_token_id, dtype=torch.int64)
    mask_BP = torch.zeros_like(ids_BP)
    for row, ids in enumerate(prompts):
        ids_BP[row, width - len(ids) :] = torch.tensor(ids)
        mask_BP[row, width - len(ids) :] = 1
    return ids_BP, mask_BP


def _generation(ids: list[int], tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> Generation:
    end = next((position for position, token_id in enumerate(ids) if token_id in ends), None)
    kept = ids[:end]
    text = tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Generation(tuple(kept), str(text), finished=end is not None)
