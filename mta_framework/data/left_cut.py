"""Shortens prompts that are too long: cuts into what was asked, and keeps what a template writes around it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mta_framework.data.chat_template import ChatTemplate
from mta_framework.data.prompts import Sample
from mta_framework.data.rows import ANSWERS, Instruction, Message, Record
from mta_framework.spans.cross_tokenizer import TokenisedText
from mta_framework.types import Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_KEPT_ROLES = ("system", "developer")
"""Turns that say how to answer, not what is asked."""


class Prompt(NamedTuple):
    """A prompt as a model reads it.

    Attributes:
        text: Its text.
        ids: Its token ids.
    """

    text: str
    ids: list[int]


def shorten_prompts(
    records: Sequence[Record],
    samples: Sequence[Sample],
    texts: Sequence[TokenisedText],
    limit: int,
    tokenizer: PreTrainedTokenizerBase,
    options: Mapping[str, Any] | None = None,
) -> list[Prompt | None]:
    """Shorten prompts to a number of tokens; those that are short enough stay as they are.

    The longest text of a row loses its beginning, then the next longest where that is not enough: instruction or input,
    the turns of a conversation except the system's, or the whole of a complete prompt. The text around them and the
    token that begins a sequence stay. Where the template does not write the texts as they are, the prompt loses its
    beginning behind that token.

    Args:
        records: Rows of a data set.
        samples: The rows as text, of which only the prompts are used.
        texts: The rows as tokens, likewise.
        limit: Maximum number of tokens of a prompt.
        tokenizer: Tokenizer that the prompts were rendered and tokenised with.
        options: Variables of its chat template by name, as the prompts were rendered with them.

    Returns:
        One prompt per row, in their order; None where nothing of what is asked fits beside what stays.
    """
    template, first_id = ChatTemplate(tokenizer, options or {}), tokenizer.bos_token_id
    prompts: list[Prompt | None] = []
    for record, sample, tokens in zip(records, samples, texts, strict=True):
        if tokens.prompt_length <= limit:
            prompts.append(Prompt(sample.prompt, tokens.prompt_ids.tolist()))
        else:
            parts = _parts(record, sample.prompt, template)
            prompts.append(_shortened(sample.prompt, parts, tokens, limit, first_id))
    return prompts


def _shortened(
    prompt: str, ranges: Sequence[Span], tokens: TokenisedText, limit: int, first_id: int | None
) -> Prompt | None:
    ids, (start_T, end_T) = tokens.prompt_ids, tokens.offsets[: tokens.prompt_length].T
    kept_T = np.ones(len(ids), dtype=bool)
    parts = [_tokens_within(part, start_T, end_T, first=int(ids[0] == first_id)) for part in ranges]
    removed: list[Span] = []
    for part in sorted(parts, key=len, reverse=True):
        excess = int(kept_T.sum()) - limit
        if excess <= 0 or not part:
            break
        stop = part[min(excess, len(part)) - 1] + 1
        while stop < part.stop and start_T[stop] < end_T[stop - 1]:  # a character of several tokens goes as a whole
            stop += 1
        kept_T[part.start : stop] = False
        removed.append((int(end_T[: part.start].max(initial=0)), int(end_T[stop - 1])))
    if kept_T.sum() > limit or not any(kept_T[part.start : part.stop].any() for part in parts):
        return None
    return Prompt(_without(prompt, removed), ids[kept_T].tolist())


def _parts(record: Record, prompt: str, template: ChatTemplate) -> list[Span]:
    """The character ranges of a prompt that may be cut; white space around texts belongs to the template."""
    parts: list[Span] = []
    if isinstance(record.prompt, tuple):
        parts = list(_contents(record, prompt, template))
    elif isinstance(record.prompt, Instruction):
        parts = _text_ranges([record.prompt.instruction.strip(), record.prompt.input.strip()], prompt)
    return parts or [(0, len(prompt))]


def _contents(record: Record, prompt: str, template: ChatTemplate) -> Iterator[Span]:
    """Where a prompt has the turns of a conversation, as far as the template lets them be told."""
    assert isinstance(record.prompt, tuple)
    answer = record.answer or Message(ANSWERS, record.references[0])
    conversation = template.conversation(record.prompt, answer, record.tools, asked=True)
    for turn, (start, stop) in template.content_ranges(conversation):
        content = prompt[start:stop]
        if turn["role"] not in _KEPT_ROLES and content.strip():
            yield start + len(content) - len(content.lstrip()), start + len(content.rstrip())


def _text_ranges(texts: Sequence[str], prompt: str) -> list[Span]:
    """Where a prompt has the texts of a row, which are searched from the last to the first."""
    parts: list[Span] = []
    end = len(prompt)
    for text in reversed(texts):
        start = prompt.rfind(text, 0, end) if text else -1
        if start >= 0:
            parts.append((start, start + len(text)))
            end = start
    return parts[::-1]  # of texts of equal length the first is cut first


def _tokens_within(part: Span, start_T: NDArray[np.int32], end_T: NDArray[np.int32], first: int) -> range:
    """The tokens whose characters all lie in a range, from ``first`` on."""
    (inside,) = np.nonzero((start_T >= part[0]) & (end_T <= part[1]) & (end_T > start_T))
    inside = inside[inside >= first]
    return range(int(inside[0]), int(inside[-1]) + 1) if len(inside) else range(0)


def _without(text: str, removed: Sequence[Span]) -> str:
    for start, end in sorted(removed, reverse=True):
        text = text[:start] + text[end:]
    return text
