"""One text in the tokens of two tokenizers: the same spans on both sides, and the places where both go on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mta_framework.spans.char_to_token import TokenOffsets
from mta_framework.types import SpanSet


@dataclass(frozen=True)
class TokenisedText:
    """A text as the tokens of one tokenizer.

    Args:
        ids: int32, prompt and response.
        offsets: (at most as many, 2) half-open character ranges; an end token that was added has none.
        prompt_length: How many tokens are the prompt.
        special: bool, for each of the offsets whether its token is special.
        cut: Whether the response goes on.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int32]
    prompt_length: int
    special: NDArray[np.bool_]
    cut: bool = False

    def ranges(self, text: str, span_set: SpanSet | Mapping[str, ArrayLike]) -> dict[str, NDArray[np.int32]]:
        """Token ranges of character spans, see ``TokenOffsets``."""
        tokens = TokenOffsets(text, self.offsets, self.special)
        return {granularity: tokens.ranges(spans) for granularity, spans in span_set.items()}


def common_spans(
    text: str, own: TokenisedText, other: TokenisedText, span_set: SpanSet | Mapping[str, ArrayLike]
) -> tuple[dict[str, NDArray[np.int32]], dict[str, NDArray[np.int32]]]:
    """Token ranges of the spans that have tokens on both sides, in one order."""
    sides = [TokenOffsets(text, side.offsets, side.special) for side in (own, other)]
    found: tuple[dict[str, NDArray[np.int32]], dict[str, NDArray[np.int32]]] = ({}, {})
    for granularity, spans in span_set.items():
        (own_K2, own_held), (other_K2, other_held) = (side.held(spans) for side in sides)
        both = own_held & other_held
        found[0][granularity] = own_K2[both[own_held]]
        found[1][granularity] = other_K2[both[other_held]]
    return found


def matched(text: str, begin: int, own: TokenisedText, other: TokenisedText) -> NDArray[np.int32]:
    """Tokens of the response that both models predict from the same text.

    Args:
        text: Prompt and response.
        begin: Characters of the prompt.
        own: The text in the tokens of one side.
        other: And of the other.

    Returns:
        (R, 2) int32, ascending, token numbers on either side. The end of the text is matched where both close it.
    """
    (own_place, own_token), (other_place, other_token) = (_places(text, begin, side) for side in (own, other))
    _, own_row, other_row = np.intersect1d(own_place, other_place, assume_unique=True, return_indices=True)
    return np.stack([own_token[own_row], other_token[other_row]], axis=1).astype(np.int32)


def _places(text: str, begin: int, side: TokenisedText) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places in the text at which a token is predicted, ascending, and the first token that is predicted there.

    A token that shares a character with those before it (a character in several pieces) begins at no place. Characters
    that no token has count as read with the token before them, as an accent that was composed with its letter, unless
    they are white space between two tokens, which may belong to either; the prompt and the whole text are read whatever
    their tokens have of them.
    """
    ends = np.maximum.accumulate(np.concatenate([[0], side.offsets[:, 1]])).astype(np.int64)
    token = np.arange(max(side.prompt_length, 1), len(side.ids))
    last = np.minimum(token, len(side.offsets))
    read = np.append(np.maximum(ends[:-1], begin), len(text))[last]
    start = np.append(side.offsets[:, 0], len(text))[last]
    for row in np.flatnonzero(start > read):
        if not text[read[row] : start[row]].isspace():
            read[row] = start[row]
    begins = start >= read
    place, first = np.unique(read[begins], return_index=True)
    return place, token[begins][first]
