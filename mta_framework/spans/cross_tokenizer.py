"""Aligns a text under two tokenizers: its spans on both sides, and the tokens that both predict from the same text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mta_framework.spans.char_to_token import LeadingCharacter, TokenOffsets
from mta_framework.types import SpanSet


@dataclass(frozen=True)
class TokenisedText:
    """Prompt and response as the tokens of one tokenizer.

    Args:
        ids: Token ids of prompt and response, int32.
        offsets: Half-open character range of each token, (at most as many as ids, 2); an added end token has none.
        prompt_length: Number of tokens of the prompt.
        special: Boolean mask over the offsets, True on special tokens.
        truncated: Whether the response was truncated to the maximum length.
        supervised: Boolean mask over the ids, see ``Example.supervised_T``.
        prompt_cut: Whether the prompt has lost its last tokens.
        leading: Character that a token may have before a span that it belongs to, see ``TokenOffsets``.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int32]
    prompt_length: int
    special: NDArray[np.bool_]
    truncated: bool = False
    supervised: NDArray[np.bool_] | None = None
    prompt_cut: bool = False
    leading: LeadingCharacter = "space"

    @property
    def prompt_ids(self) -> NDArray[np.int32]:
        """Token ids of the prompt."""
        return self.ids[: self.prompt_length]

    @property
    def response_ids(self) -> NDArray[np.int32]:
        """Token ids of the response, with its end token."""
        return self.ids[self.prompt_length :]

    def token_offsets(self, text: str) -> TokenOffsets:
        """Index the character ranges of the tokens.

        Args:
            text: The whole text, prompt and response.
        """
        return TokenOffsets(text, self.offsets, self.special, self.leading)

    def token_ranges(self, text: str, span_set: SpanSet | Mapping[str, ArrayLike]) -> dict[str, NDArray[np.int32]]:
        """Convert character spans to token ranges.

        Args:
            text: The whole text, prompt and response.
            span_set: Granularity -> half-open character ranges.

        Returns:
            Granularity -> half-open token ranges, see ``TokenOffsets.token_ranges``.
        """
        tokens = self.token_offsets(text)
        return {granularity: tokens.token_ranges(spans) for granularity, spans in span_set.items()}


def common_spans(
    text: str, student: TokenisedText, teacher: TokenisedText, span_set: SpanSet | Mapping[str, ArrayLike]
) -> tuple[dict[str, NDArray[np.int32]], dict[str, NDArray[np.int32]]]:
    """Convert spans to token ranges of two tokenizers, keeping only spans that have tokens on both sides.

    Args:
        text: The whole text, prompt and response.
        student: The text in the student's tokens.
        teacher: The text in the teacher's tokens.
        span_set: Granularity -> half-open character ranges.

    Returns:
        Two dictionaries, granularity -> half-open token ranges: the student's and the teacher's, in the same order.
    """
    sides = [side.token_offsets(text) for side in (student, teacher)]
    ranges: tuple[dict[str, NDArray[np.int32]], dict[str, NDArray[np.int32]]] = ({}, {})
    for granularity, spans in span_set.items():
        (student_K2, student_mask), (teacher_K2, teacher_mask) = (side.token_ranges_with_mask(spans) for side in sides)
        both = student_mask & teacher_mask
        ranges[0][granularity] = student_K2[both[student_mask]]
        ranges[1][granularity] = teacher_K2[both[teacher_mask]]
    return ranges


def matched_tokens(text: str, prompt_end: int, student: TokenisedText, teacher: TokenisedText) -> NDArray[np.int32]:
    """Find the supervised tokens of a response that both models predict from the same text.

    Args:
        text: The whole text, prompt and response.
        prompt_end: Number of characters of the prompt.
        student: The text in the student's tokens.
        teacher: The text in the teacher's tokens.

    Returns:
        (R, 2) int32, ascending: token index in the student's and in the teacher's tokens. The end tokens match where
        both texts end with one.
    """
    sides = (student, teacher)
    (student_offset, student_token), (teacher_offset, teacher_token) = (
        _prediction_offsets(text, prompt_end, side) for side in sides
    )
    _, student_row, teacher_row = np.intersect1d(
        student_offset, teacher_offset, assume_unique=True, return_indices=True
    )
    return np.stack([student_token[student_row], teacher_token[teacher_row]], axis=1).astype(np.int32)


def _prediction_offsets(text: str, prompt_end: int, side: TokenisedText) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Character offsets at which a token is predicted, ascending, and the first token predicted at each.

    No offset is given for a token that shares a character with the tokens before it (a character split into several
    tokens). Characters without a token (an accent composed with its letter) count as read together with the token
    before them, except white space between two tokens, which may belong to either. The prompt and the whole text count
    as read, whether or not tokens cover all their characters.
    """
    ends = np.maximum.accumulate(np.concatenate([[0], side.offsets[:, 1]])).astype(np.int64)
    token = np.arange(max(side.prompt_length, 1), len(side.ids))
    last = np.minimum(token, len(side.offsets))
    read = np.append(np.maximum(ends[:-1], prompt_end), len(text))[last]
    start = np.append(side.offsets[:, 0], len(text))[last]
    for row in np.flatnonzero(start > read):
        if not text[read[row] : start[row]].isspace():
            read[row] = start[row]
    begins = start >= read
    if side.supervised is not None:
        begins &= side.supervised[token]
    offset, first = np.unique(read[begins], return_index=True)
    return offset, token[begins][first]
