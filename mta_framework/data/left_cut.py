"""Shortens prompts that are too long: cuts into what was asked, and keeps what a template writes around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mta_framework.data.prompts import Sample
from mta_framework.data.rows import Instruction, Record
from mta_framework.spans.cross_tokenizer import TokenisedText
from mta_framework.types import Span

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
    first_id: int | None,
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
        first_id: Id of the token that begins a sequence; None: the tokenizer has none.

    Returns:
        One prompt per row, in their order; None where nothing of what is asked fits beside what stays.
    """
    rows = zip(records, samples, texts, strict=True)
    return [
        Prompt(sample.prompt, tokens.ids[: tokens.prompt_length].tolist())
        if tokens.prompt_length <= limit
        else _shortened(record, sample.prompt, tokens, limit, first_id)
        for record, sample, tokens in rows
    ]


def _shortened(record: Record, prompt: str, tokens: TokenisedText, limit: int, first_id: int | None) -> Prompt | None:
    ids, (start_T, end_T) = tokens.ids[: tokens.prompt_length], tokens.offsets[: tokens.prompt_length].T
    kept_T = np.ones(len(ids), dtype=bool)
    parts = [_tokens_within(part, start_T, end_T, first=int(ids[0] == first_id)) for part in _parts(record, prompt)]
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


def _parts(record: Record, prompt: str) -> list[Span]:
    """The character ranges of a prompt that may be cut. The texts of a row are searched from the last to the first."""
    parts: list[Span] = []
    end = len(prompt)
    for text in reversed(list(_texts(record))):
        start = prompt.rfind(text, 0, end) if text else -1
        if start >= 0:
            parts.append((start, start + len(text)))
            end = start
    return parts[::-1] or [(0, len(prompt))]  # of texts of equal length the first is cut first


def _texts(record: Record) -> Iterator[str]:
    """What is asked in a row, in its order; white space around it belongs to the template, which may strip it."""
    if isinstance(record.prompt, str):
        yield record.prompt
    elif isinstance(record.prompt, Instruction):
        yield from (record.prompt.instruction.strip(), record.prompt.input.strip())
    else:
        yield from (turn.text.strip() for turn in record.prompt if turn.role not in _KEPT_ROLES)


def _tokens_within(part: Span, start_T: NDArray[np.int32], end_T: NDArray[np.int32], first: int) -> range:
    """The tokens whose characters all lie in a range, from ``first`` on."""
    (inside,) = np.nonzero((start_T >= part[0]) & (end_T <= part[1]) & (end_T > start_T))
    inside = inside[inside >= first]
    return range(int(inside[0]), int(inside[-1]) + 1) if len(inside) else range(0)


def _without(text: str, removed: Sequence[Span]) -> str:
    for start, end in sorted(removed, reverse=True):
        text = text[:start] + text[end:]
    return text
