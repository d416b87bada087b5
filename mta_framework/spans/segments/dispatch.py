"""Lets a span extractor work on stretches of texts, and maps what it finds back to the texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from mta_framework.interfaces import SpanExtractor
from mta_framework.spans.segments.segment import Segment
from mta_framework.types import Span, SpanSet


def gaps(text: str, segments: Sequence[Segment]) -> list[Span]:
    """What lies between stretches, before the first and behind the last, without white space at both ends."""
    starts = [0, *(segment.end for segment in segments)]
    ends = [*(segment.start for segment in segments), len(text)]
    found = []
    for start, end in zip(starts, ends, strict=True):
        part = text[start:end]
        if stripped := part.strip():
            first = start + len(part) - len(part.lstrip())
            found.append((first, first + len(stripped)))
    return found


class Piece(NamedTuple):
    """What an extractor reads of a text.

    Args:
        text: As it is given to the extractor, perhaps with something around it.
        offset: Where its first character is, or would be, in the whole text.
        span: The range of the whole text that it stands for; what is found outside of it is dropped.
    """

    text: str
    offset: int
    span: Span


def pieces_of(text: str, ranges: Sequence[Span]) -> list[Piece]:
    """Ranges of a text as pieces, as they are."""
    return [Piece(text[start:end], start, (start, end)) for start, end in ranges]


def spans_of(extractor: SpanExtractor, pieces: Sequence[Sequence[Piece]]) -> list[SpanSet]:
    """Find spans in some pieces of each text, each piece by itself, all of them in one call of the extractor.

    Args:
        extractor: Sees each piece as a text of its own.
        pieces: For each text, sorted and apart from each other; may be empty. Without any the extractor isn't called.

    Returns:
        For each text, the extractor's granularities with offsets into the whole text.

    Raises:
        ValueError: The extractor breaks its contract.
    """
    flat = [piece.text for own in pieces for piece in own]
    found = iter(_checked(extractor, flat) if flat else ())
    sets: list[SpanSet] = []
    for own in pieces:
        spans: dict[str, list[Span]] = {granularity: [] for granularity in extractor.granularities}
        for piece in own:
            first, last = piece.span[0] - piece.offset, piece.span[1] - piece.offset
            for granularity, inner in next(found).items():
                spans[granularity] += [
                    (piece.offset + start, piece.offset + end) for start, end in inner if first <= start and end <= last
                ]
        sets.append(spans)
    return sets


def _checked(extractor: SpanExtractor, texts: Sequence[str]) -> Sequence[SpanSet]:
    """What would go unseen in the whole: the core checks that, and not its parts."""
    found = extractor.extract(texts)
    if len(found) != len(texts):
        raise ValueError(f"its part {extractor.NAME!r} returned {len(found)} span sets for {len(texts)} texts")
    for text, spans in zip(texts, found, strict=True):
        if set(spans) != set(extractor.granularities):
            raise ValueError(f"its part {extractor.NAME!r} must return {extractor.granularities} (got {list(spans)})")
        problem = [span for inner in spans.values() for span in inner if not 0 <= span[0] < span[1] <= len(text)]
        if problem:
            raise ValueError(f"its part {extractor.NAME!r} found {problem[0]} in a stretch of {len(text)} characters")
    return found


def failures_of(extractor: SpanExtractor, pieces: Sequence[Sequence[Piece]]) -> list[int]:
    """How many stretches the extractor cannot parse in some pieces of each text; arguments as ``spans_of``."""
    flat = [piece.text for own in pieces for piece in own]
    sums = list(accumulate(extractor.failures(flat) if flat else (), initial=0))
    bounds = list(accumulate(map(len, pieces), initial=0))
    return [sums[end] - sums[start] for start, end in pairwise(bounds)]


def spans_within(extractor: SpanExtractor, texts: Sequence[str], ranges: Sequence[Sequence[Span]]) -> list[SpanSet]:
    """``spans_of`` the ranges of each text, as they are."""
    return spans_of(extractor, [pieces_of(text, own) for text, own in zip(texts, ranges, strict=True)])


def failures_within(extractor: SpanExtractor, texts: Sequence[str], ranges: Sequence[Sequence[Span]]) -> list[int]:
    """``failures_of`` the ranges of each text, as they are."""
    return failures_of(extractor, [pieces_of(text, own) for text, own in zip(texts, ranges, strict=True)])


def merged(granularities: Sequence[str], parts: Sequence[Mapping[str, Sequence[Span]]]) -> SpanSet:
    """One span set of several that share no span; a granularity that a part lacks is empty there."""
    return {
        granularity: sorted(
            (span for part in parts for span in part.get(granularity, ())), key=lambda span: (span[0], -span[1])
        )
        for granularity in granularities
    }
