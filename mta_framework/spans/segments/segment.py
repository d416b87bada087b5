"""A segment of a text in one notation."""

from __future__ import annotations

from typing import Literal, NamedTuple

from mta_framework.types import Span

Notation = Literal["fenced code", "inline code", "latex", "arithmetic", "unclosed"]


class Segment(NamedTuple):
    """A segment of a text in one notation.

    Args:
        notation: Notation of the segment; ``unclosed`` is a formula whose delimiter is not closed.
        start: Character offset of its start, delimiters included.
        end: Character offset of its end, exclusive, delimiters included.
        inner: Half-open character range between the delimiters, within ``[start, end)``; may be empty.
        tag: First word after the opening fence, in lower case; empty without one.
    """

    notation: Notation
    start: int
    end: int
    inner: Span
    tag: str = ""


def shifted(segment: Segment, offset: int) -> Segment:
    """Shift all offsets of a segment by ``offset`` characters."""
    start, end = segment.inner
    return segment._replace(
        start=segment.start + offset, end=segment.end + offset, inner=(start + offset, end + offset)
    )
