"""Lets a span extractor work on stretches of texts, and maps what it finds back to the texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

from mta_framework.interfaces import SpanExtractor
from mta_framework.stretches.stretch import Stretch
from mta_framework.types import Span, SpanSet


def gaps(text: str, stretches: Sequence[Stretch]) -> list[Span]:
    """What lies between stretches, before the first and behind the last; white space alone is left out."""
    starts = [0, *(stretch.end for stretch in stretches)]
    ends = [*(stretch.start for stretch in stretches), len(text)]
    return [(start, end) for start, end in zip(starts, ends, strict=True) if text[start:end].strip()]


def spans_within(extractor: SpanExtractor, texts: Sequence[str], ranges: Sequence[Sequence[Span]]) -> list[SpanSet]:
    """Find spans in some ranges of each text, each range by itself, all of them in one call of the extractor.

    Args:
        extractor: Sees each range as a text of its own.
        texts: Any strings.
        ranges: For each text, sorted and apart from each other; may be empty. Without any the extractor isn't called.

    Returns:
        For each text, the extractor's granularities with offsets into the whole text.
    """
    pieces = _pieces(texts, ranges)
    found = iter(extractor.extract(pieces) if pieces else ())
    sets: list[SpanSet] = []
    for own in ranges:
        spans: dict[str, list[Span]] = {granularity: [] for granularity in extractor.granularities}
        for offset, _ in own:
            for granularity, inner in next(found).items():
                spans[granularity] += [(offset + start, offset + end) for start, end in inner]
        sets.append(spans)
    return sets


def failures_within(extractor: SpanExtractor, texts: Sequence[str], ranges: Sequence[Sequence[Span]]) -> list[int]:
    """How many stretches the extractor can't parse in some ranges of each text; arguments as ``spans_within``."""
    pieces = _pieces(texts, ranges)
    counts = extractor.failures(pieces) if pieces else []
    sums = list(accumulate(counts, initial=0))
    bounds = list(accumulate(map(len, ranges), initial=0))
    return [sums[end] - sums[start] for start, end in pairwise(bounds)]


def merged(granularities: Sequence[str], parts: Sequence[Mapping[str, Sequence[Span]]]) -> SpanSet:
    """One span set of several that share no span; a granularity that a part lacks is empty there."""
    return {
        granularity: sorted(
            (span for part in parts for span in part.get(granularity, ())), key=lambda span: (span[0], -span[1])
        )
        for granularity in granularities
    }


def _pieces(texts: Sequence[str], ranges: Sequence[Sequence[Span]]) -> list[str]:
    return [text[start:end] for text, own in zip(texts, ranges, strict=True) for start, end in own]
