"""Applies the length limits before spans are parsed, so that text which is not used costs no parsing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mta_framework.data.prompts import Sample
from mta_framework.data.tokens import prompt_ids, tokenise

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LONG = 20_000
"""Characters up to which a text is parsed as it is: tokenising it twice would cost more than parsing it in vain."""

_CONTEXT = 20_000
"""Characters behind the last token that is used, which a parser may still look at."""


def parsed_part(
    sample: Sample, tokenizers: Sequence[PreTrainedTokenizerBase], max_length: int, max_prompt_length: int | None
) -> tuple[str, tuple[int, ...]]:
    """Return the beginning of a sample's text that can matter for its spans, and the boundaries of fields within it.

    Args:
        sample: Prompt and response.
        tokenizers: Tokenizers of student and teacher.
        max_length: Maximum number of tokens of prompt and response; longer responses are truncated.
        max_prompt_length: Maximum number of tokens of the prompt; of a sample with a longer one nothing is parsed.
            None: no limit.
    """
    text = sample.text
    if len(text) <= _LONG:
        return text, sample.boundaries
    if max_prompt_length is not None:
        lengths = [len(prompt_ids([sample], tokenizer)[0]) for tokenizer in tokenizers]
        if max(lengths) > max_prompt_length:
            return "", ()
    ends = [_end(sample.response, tokenizer, max_length) for tokenizer in tokenizers]
    part = text[: len(sample.prompt) + max(ends) + _CONTEXT]
    return part, tuple(boundary for boundary in sample.boundaries if boundary <= len(part))


def _end(response: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> int:
    """The character behind the first ``max_length`` tokens of a response."""
    (tokens,) = tokenise([response], tokenizer, add_special_tokens=False)
    return int(tokens.offsets[:max_length, 1].max(initial=0))
