"""Where a response begins and ends, and what it may be made of: room in the model, first and last tokens, padding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mta_framework.errors import Fault
from mta_framework.models.tokenizers import vocabulary_size

if TYPE_CHECKING:
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def max_positions(config: PretrainedConfig) -> int | None:
    """The number of tokens that a model has positions for; None where its configuration states no limit."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def room_fault(config: PretrainedConfig, prompt_length: int, max_new_tokens: int) -> Fault | None:
    """The fault of asking for more positions than the model has; None if there is room (or no stated limit)."""
    room = max_positions(config)
    if room is None or prompt_length + max_new_tokens <= room:
        return None
    return Fault(
        "evaluation.max_new_tokens",
        f"a prompt of {prompt_length} tokens and a response of {max_new_tokens} do not fit into the model's "
        f"{room} positions (got {max_new_tokens})",
        f"prompt and response may have {room} tokens together",
        "Lower evaluation.max_new_tokens or evaluation.max_prompt_length.",
    )


def depends_on_batch_length(config: PretrainedConfig, length: int) -> bool:
    """Whether what a model makes of a text depends on the longest text beside it, where texts are this long.

    LongRoPE (Phi-3) turns the states of a whole batch in another way as soon as one text in it is longer than those
    that the model was first trained on.
    """
    rotary = getattr(config.get_text_config(), "rope_parameters", None) or {}
    kinds = [rotary] if "rope_type" in rotary else [kind for kind in rotary.values() if isinstance(kind, dict)]
    limits = [kind["original_max_position_embeddings"] for kind in kinds if kind.get("rope_type") == "longrope"]
    return any(length > limit for limit in limits)


def end_ids(stored: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end a response: the tokenizer's, and those of the model's settings that are special to it.

    Chat models often stop at several tokens and only the model's stored settings name them all; but the default of a
    freshly initialised model may be an ordinary word of its tokenizer.
    """
    named = stored.eos_token_id if stored is not None else None
    candidates = named if isinstance(named, list) else [named]
    special = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    ends = special.intersection(candidates)
    return sorted(ends if tokenizer.eos_token_id is None else ends | {tokenizer.eos_token_id})


def first_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """What an empty prompt starts from: the tokenizer's first special token."""
    candidates = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    return next((token_id for token_id in candidates if token_id is not None), 0)


def output_size(model: PreTrainedModel) -> int:
    """How many ids the model gives a score."""
    return int(model.get_output_embeddings().weight.shape[0])  # type: ignore[index]


def padding_ids(size: int, tokenizer: PreTrainedTokenizerBase) -> range:
    """The ids that fill up a vocabulary of ``size``: the tokenizer has no token for them, another model no embedding.

    They get a little probability all the same, and a good deal of it before training.
    """
    return range(vocabulary_size(tokenizer), size)
