"""Words by character class, in any script and without a parser."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from mta_framework import Overlap, SpanExtractor, SpanSet

_INNER = "'’-‐‑\u200c\u200d"
"""Characters that may stand between two letters of a word: apostrophes, hyphens, joiners of Persian and Indic
scripts."""

_SYMBOLS = {"L": "a", "N": "a", "M": "m"}

_WORD = re.compile(r"a[am]*(?:-a[am]*)*")


class Words(SpanExtractor):
    """Runs of letters, digits and marks in any script, with inner apostrophes and hyphens.

    It needs no parser, so it also suits languages, code and formulas that parsers handle poorly. It yields no phrases.
    In scripts without spaces between words, a word is a whole run.
    """

    NAME = "words"
    VERSION = "1"

    @property
    def granularities(self) -> tuple[str, ...]:
        return ("words",)

    def overlap(self, granularity: str) -> Overlap:
        return "none"

    def extract(self, texts: Sequence[str]) -> list[SpanSet]:
        return [{"words": [match.span() for match in _WORD.finditer(text.translate(_CLASSES))]} for text in texts]


class _Classes(dict[int, str]):
    """Lazily maps characters to ``a`` (letters, digits), ``m`` (marks), ``-`` (inner) or a space."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kind = unicodedata.category(character)[0]
        self[code] = "-" if character in _INNER else _SYMBOLS.get(kind, " ")
        return self[code]


_CLASSES = _Classes()
