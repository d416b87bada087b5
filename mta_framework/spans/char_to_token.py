"""Converts spans from character ranges to token ranges."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

LeadingCharacter = Literal["space", "any"]
"""Character that a token of a span may have before the span: one space, or any."""

_LAST_SPACE = 0x3000
_IS_SPACE = np.array([chr(code).isspace() for code in range(_LAST_SPACE + 1)] + [False])


class TokenOffsets:
    """Character ranges of the tokens of one text, indexed to convert spans to token ranges.

    A token lies in a span if all its characters do. A token that begins with exactly one whitespace character and is
    longer than it may begin one character before the span: in byte-level vocabularies the space before a word belongs
    to the token of the word. With the leading character ``any`` every token may. Special tokens and tokens without
    characters lie in no span.

    Args:
        text: The whole text, prompt and response.
        offset_T2: Half-open character range of each token, ascending; empty for tokens without characters.
        special_T: True on special tokens, which may have characters (those that a chat template writes).
        leading: Character that a token may have before a span that it belongs to.

    Source: ``any`` is the rule in the code of MTA's authors.
    """

    def __init__(
        self,
        text: str,
        offset_T2: NDArray[np.integer],
        special_T: NDArray[np.bool_],
        leading: LeadingCharacter = "space",
    ):
        start_T, end_T = offset_T2[:, 0], offset_T2[:, 1]
        self._token = np.flatnonzero((end_T > start_T) & ~special_T)
        start, self._end = start_T[self._token], end_T[self._token]
        self._start = start + (_leading_spaces(text, start, self._end) if leading == "space" else 1)
        self._specials_before = np.cumsum(special_T)

    def token_ranges(self, spans: ArrayLike) -> NDArray[np.int32]:
        """Convert spans to token ranges.

        Args:
            spans: K half-open character ranges.

        Returns:
            (at most K, 2) half-open token ranges, in the order of the spans, each from the first to the last token that
            lies in the span. Spans without any token are left out, and so are spans that contain a special token:
            these reach across the end of a turn.
        """
        return self.token_ranges_with_mask(spans)[0]

    def token_ranges_with_mask(self, spans: ArrayLike) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Convert spans to token ranges, with a mask of the spans that have one.

        Args:
            spans: K half-open character ranges.

        Returns:
            The token ranges, as from ``token_ranges``, and a boolean mask over the K spans: True where the span has a
            token range.
        """
        start_K, end_K = np.asarray(spans, dtype=np.int64).reshape(-1, 2).T
        first_K = np.searchsorted(self._start, start_K, side="left")
        last_K = np.searchsorted(self._end, end_K, side="right") - 1
        mask_K = last_K >= first_K
        first, last = self._token[first_K[mask_K]], self._token[last_K[mask_K]]
        uninterrupted = self._specials_before[first] == self._specials_before[last]
        mask_K[mask_K] = uninterrupted
        return np.stack([first[uninterrupted], last[uninterrupted] + 1], axis=1).astype(np.int32), mask_K


def _leading_spaces(text: str, start: NDArray[np.integer], end: NDArray[np.integer]) -> NDArray[np.bool_]:
    code = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32)
    # One more entry at the end, so that the second character of the last token can be looked up too.
    is_space = np.append(_IS_SPACE[np.minimum(code, _LAST_SPACE + 1)], False)
    return is_space[start] & ~is_space[start + 1] & (end - start > 1)
