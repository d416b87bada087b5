"""Passes parts of texts to a span extractor and maps its spans back to the whole texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple, get_args

from mta_framework.interfaces import SpanExtractor
from mta_framework.spans.segments.segment import Segment
from mta_framework.types import Overlap, Span, SpanSet


def gaps(text: str, segments: Sequence[Segment]) -> list[Span]:
    """Return the ranges of a text between segments, without white space at both ends; blank ones are left out.

    Args:
        text: The text of the segments.
        segments: Segments sorted by start, disjoint.

    Returns:
        Half-open character ranges, in order, the text before the first and after the last segment included.
    """
    starts = [0, *(segment.end for segment in segments)]
    ends = [*(segment.start for segment in segments), len(text)]
    ranges = []
    for start, end in zip(starts, ends, strict=True):
        part = text[start:end]
        if stripped := part.strip():
            first = start + len(part) - len(part.lstrip())
            ranges.append((first, first + len(stripped)))
    return ranges


class Excerpt(NamedTuple):
    """A part of a text, as it is passed to an extractor.

    Args:
        text: String that the extractor receives; it may add characters around the part, e.g. fences.
        offset: Character offset in the whole text that corresponds to the first character of ``text``; may be negative.
        span: Half-open character range of the part in the whole text; spans outside of it are dropped.
    """

    text: str
    offset: int
    span: Span


def excerpts_of(text: str, ranges: Sequence[Span]) -> list[Excerpt]:
    """Cut excerpts out of a text, unchanged.

    Args:
        text: Any string.
        ranges: Half-open character ranges.
    """
    return [Excerpt(text[start:end], start, (start, end)) for start, end in ranges]


def spans_of(extractor: SpanExtractor, excerpts: Sequence[Sequence[Excerpt]]) -> list[SpanSet]:
    """Extract spans from excerpts of texts, in one call of the extractor.

    Args:
        extractor: Span extractor, which receives each excerpt as a separate text.
        excerpts: For each text its excerpts, sorted and disjoint; may be empty. Without any excerpt the extractor is
            not called.

    Returns:
        For each text, granularity of the extractor -> spans as character ranges of the whole text.

    Raises:
        ValueError: The extractor breaks its contract.
    """
    flat = [excerpt.text for text_excerpts in excerpts for excerpt in text_excerpts]
    span_sets = iter(_checked(extractor, flat) if flat else ())
    sets: list[SpanSet] = []
    for text_excerpts in excerpts:
        spans: dict[str, list[Span]] = {granularity: [] for granularity in extractor.granularities}
        for excerpt in text_excerpts:
            first, last = excerpt.span[0] - excerpt.offset, excerpt.span[1] - excerpt.offset
            for granularity, inner in next(span_sets).items():
                spans[granularity] += [
                    (excerpt.offset + start, excerpt.offset + end)
                    for start, end in inner
                    if first <= start and end <= last
                ]
        sets.append(spans)
    return sets


def _checked(extractor: SpanExtractor, texts: Sequence[str]) -> Sequence[SpanSet]:
    """Extract and validate spans of excerpts; a fault in them could pass unnoticed in the spans of the whole text."""
    span_sets = extractor.extract(texts)
    if len(span_sets) != len(texts):
        raise ValueError(f"its part {extractor.NAME!r} returned {len(span_sets)} span sets for {len(texts)} texts")
    for text, spans in zip(texts, span_sets, strict=True):
        if set(spans) != set(extractor.granularities):
            raise ValueError(f"its part {extractor.NAME!r} must return {extractor.granularities} (got {list(spans)})")
        problem = [span for inner in spans.values() for span in inner if not 0 <= span[0] < span[1] <= len(text)]
        if problem:
            raise ValueError(f"its part {extractor.NAME!r} found {problem[0]} in a segment of {len(text)} characters")
    return span_sets


def failures_of(extractor: SpanExtractor, excerpts: Sequence[Sequence[Excerpt]]) -> list[int]:
    """Count the segments that an extractor cannot parse in excerpts of texts.

    Args:
        extractor: Span extractor, which receives each excerpt as a separate text.
        excerpts: For each text its excerpts; may be empty.

    Returns:
        For each text, the number of segments that could not be parsed.
    """
    flat = [excerpt.text for text_excerpts in excerpts for excerpt in text_excerpts]
    sums = list(accumulate(extractor.failures(flat) if flat else (), initial=0))
    bounds = list(accumulate(map(len, excerpts), initial=0))
    return [sums[end] - sums[start] for start, end in pairwise(bounds)]


def spans_within(extractor: SpanExtractor, texts: Sequence[str], ranges: Sequence[Sequence[Span]]) -> list[SpanSet]:
    """Extract spans from ranges of texts, in one call of the extractor; see ``spans_of``.

    Args:
        extractor: Span extractor, which receives each range as a separate text.
        texts: Any strings.
        ranges: For each text its half-open character ranges, sorted and disjoint.
    """
    return spans_of(extractor, [excerpts_of(*text_ranges) for text_ranges in zip(texts, ranges, strict=True)])


def failures_within(extractor: SpanExtractor, texts: Sequence[str], ranges: Sequence[Sequence[Span]]) -> list[int]:
    """Count the segments that an extractor cannot parse in ranges of texts; see ``failures_of``.

    Args:
        extractor: Span extractor, which receives each range as a separate text.
        texts: Any strings.
        ranges: For each text its half-open character ranges, sorted and disjoint.
    """
    return failures_of(extractor, [excerpts_of(*text_ranges) for text_ranges in zip(texts, ranges, strict=True)])


def widest(kinds: Iterable[Overlap]) -> Overlap:
    """How spans may overlap that come from several extractors, of which each keeps to segments that no other reads.

    Args:
        kinds: How those of each may; one at least.
    """
    return max(kinds, key=get_args(Overlap).index)


def merged(granularities: Sequence[str], parts: Sequence[Mapping[str, Sequence[Span]]]) -> SpanSet:
    """Merge several span sets of one text, which must share no span, into one.

    Args:
        granularities: Granularities of the result.
        parts: Span sets of the text; one that lacks a granularity adds no spans to it.

    Returns:
        Granularity -> spans, sorted by (start, -end).
    """
    return {
        granularity: sorted(
            (span for part in parts for span in part.get(granularity, ())), key=lambda span: (span[0], -span[1])
        )
        for granularity in granularities
    }
