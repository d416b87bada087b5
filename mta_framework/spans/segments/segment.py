"""A stretch of a text in one notation."""

from __future__ import annotations

from typing import Literal, NamedTuple

from mta_framework.types import Span

Notation = Literal["fenced code", "inline code", "latex", "arithmetic", "unclosed"]


class Segment(NamedTuple):
    """A stretch of a text in one notation.

    Args:
        notation: ``unclosed`` is a formula whose delimiter never closes.
        start: Of the whole, delimiters included.
        end: Of the whole.
        inner: Half-open range of what the delimiters enclose, inside ``[start, end)``; may be empty.
        tag: First word behind an opening fence, in lower case.
    """

    notation: Notation
    start: int
    end: int
    inner: Span
    tag: str = ""


def shifted(segment: Segment, offset: int) -> Segment:
    """The same stretch of a text that has ``offset`` more characters in front."""
    start, end = segment.inner
    return segment._replace(
        start=segment.start + offset, end=segment.end + offset, inner=(start + offset, end + offset)
    )
