"""Clauses between punctuation marks: phrases for languages without a parser."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pydantic import Field

from mta_framework import Overlap, PluginParams, Span, SpanExtractor, SpanSet

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_BETWEEN = re.compile(r"[^.,;:!?()\[\]{}\"“”„«»、。，；：！？…\n\r]+")


class Clauses(SpanExtractor):
    """Words, and clauses between punctuation marks as phrases.

    A clause begins and ends with a word and has at least ``min_words`` words.
    """

    NAME = "clauses"
    # Part of the cache key: raise it whenever the same text and options give different spans.
    VERSION = "1"

    class Params(PluginParams):
        """Options."""

        min_words: int = Field(
            2, ge=1, le=100, description="Least number of words of a clause; shorter ones are left out."
        )

    params: Params

    @property
    def granularities(self) -> tuple[str, ...]:
        return ("words", "phrases")

    def overlap(self, granularity: str) -> Overlap:
        return "none"

    def extract(self, texts: Sequence[str]) -> list[SpanSet]:
        return [{"words": _words(text, 0, len(text)), "phrases": list(self._clauses(text))} for text in texts]

    def _clauses(self, text: str) -> Iterator[Span]:
        for between in _BETWEEN.finditer(text):
            words = _words(text, *between.span())
            if len(words) >= self.params.min_words:
                yield words[0][0], words[-1][1]


def _words(text: str, start: int, end: int) -> list[Span]:
    return [word.span() for word in _WORD.finditer(text, start, end)]
