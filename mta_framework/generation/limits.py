"""Limits of responses: positions of the model, first token, ids that are no tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mta_framework.errors import Fault
from mta_framework.models.tokenizers import vocabulary_size

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def max_positions(config: PretrainedConfig) -> int | None:
    """Return the maximum number of tokens of a text; None where the configuration states no limit."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def room_fault(config: PretrainedConfig, prompt_length: int, max_new_tokens: int) -> Fault | None:
    """Check that prompt and response fit into the positions of a model.

    Args:
        config: Configuration of the model.
        prompt_length: Number of tokens of the longest prompt.
        max_new_tokens: Maximum number of tokens of a response.

    Returns:
        The fault, or None if they fit or the configuration states no limit.
    """
    room = max_positions(config)
    if room is None or prompt_length + max_new_tokens <= room:
        return None
    return Fault(
        "evaluation.max_new_tokens",
        f"a prompt of {prompt_length} tokens and a response of {max_new_tokens} do not fit into the model's "
        f"{room} positions (got {max_new_tokens})",
        f"at most {room} tokens of prompt and response together",
        "Lower evaluation.max_new_tokens or evaluation.max_prompt_length.",
    )


def depends_on_batch_length(config: PretrainedConfig, length: int) -> bool:
    """Return whether the states of a text depend on the longest text in its batch.

    LongRoPE (Phi-3) rotates the states of a whole batch differently as soon as one text is longer than the model's
    original maximum length.

    Args:
        config: Configuration of the model.
        length: Number of tokens of the longest text.
    """
    rotary = getattr(config.get_text_config(), "rope_parameters", None) or {}
    kinds = [rotary] if "rope_type" in rotary else [kind for kind in rotary.values() if isinstance(kind, dict)]
    limits = [kind["original_max_position_embeddings"] for kind in kinds if kind.get("rope_type") == "longrope"]
    return any(length > limit for limit in limits)


def first_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id that an empty prompt starts from: the first of the begin, end and padding tokens that exists."""
    candidates = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    return next((token_id for token_id in candidates if token_id is not None), 0)


def output_size(model: PreTrainedModel) -> int:
    """Return the size of the model's vocabulary: the number of logits per position."""
    return int(model.get_output_embeddings().weight.shape[0])  # type: ignore[index]


def padding_ids(size: int, tokenizer: PreTrainedTokenizerBase) -> range:
    """Return the ids that pad a vocabulary: the tokenizer has no tokens for them.

    They get a little probability all the same, and much of it before training.

    Args:
        size: Size of the model's vocabulary.
        tokenizer: Tokenizer of the model.
    """
    return range(vocabulary_size(tokenizer), size)
