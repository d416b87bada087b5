"""Statistics of the spans in many texts: counts, coverage, failures and the speed of parsing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mta_framework.reporting.annotated_text import AnnotatedText
from mta_framework.tables.table import Table
from mta_framework.types import Span


@dataclass(frozen=True)
class Granularity:
    """The spans of one granularity.

    Args:
        name: Name of the granularity.
        spans: Number of spans.
        characters: Share of all characters that lie in some span, from 0 to 1.
        tokens: Share of all tokens that lie in some span; None where the texts were not tokenized.
        texts_without: Number of texts without such a span.
    """

    name: str
    spans: int
    characters: float
    tokens: float | None
    texts_without: int


@dataclass(frozen=True)
class Speed:
    """How long one process took to parse texts, without the time that loading its parser takes."""

    texts: int
    characters: int
    seconds: float


@dataclass(frozen=True)
class SpanStatistics:
    """Statistics of the spans in some texts.

    Args:
        texts: Number of texts.
        granularities: One entry per granularity, in the order of the extractor.
        failures: Number of text segments that could not be parsed.
        texts_with_failures: Number of texts with such a segment.
        speed: Speed of parsing.
    """

    texts: int
    granularities: tuple[Granularity, ...]
    failures: int
    texts_with_failures: int
    speed: Speed


def span_statistics(texts: Sequence[AnnotatedText], failures: Sequence[int], speed: Speed) -> SpanStatistics:
    """Count the spans of some texts.

    Args:
        texts: The texts, at least one.
        failures: For each text, the number of its segments that could not be parsed.
        speed: Speed of parsing, which is passed on.
    """
    granularities = tuple(_granularity(name, texts) for name in texts[0].spans)
    return SpanStatistics(len(texts), granularities, sum(failures), sum(count > 0 for count in failures), speed)


def statistics_table(statistics: SpanStatistics) -> Table:
    """The statistics as a table with a row for each granularity."""
    tokenized = all(row.tokens is not None for row in statistics.granularities)
    tokens = ["tokens in them"] if tokenized else []
    rows = [list(_cells(row, statistics.texts)) for row in statistics.granularities]
    header = ["spans", "number", "per text", "characters in them", *tokens, "texts without"]
    return Table(header, rows, "Spans by granularity")


def statistics_notes(statistics: SpanStatistics) -> Iterator[str]:
    """What the table does not say, a sentence each."""
    yield f"Counted over {_counted(statistics.texts, 'text')}."
    if statistics.failures:
        failed = _counted(statistics.failures, "segment")
        yield f"Could not be parsed and have no spans: {failed} in {_counted(statistics.texts_with_failures, 'text')}."
    else:
        yield "Everything could be parsed."
    speed = statistics.speed
    if speed.seconds > 0:
        rates = f"{_rate(speed.texts / speed.seconds)} texts/s, {_rate(speed.characters / speed.seconds)} characters/s"
        yield f"Parsing: {rates} in one process with its parser loaded ({_counted(speed.texts, 'text')})."


def _cells(row: Granularity, texts: int) -> Iterator[str]:
    yield from (row.name, f"{row.spans:,}", f"{row.spans / texts:.1f}", f"{row.characters:.1%}")
    if row.tokens is not None:
        yield f"{row.tokens:.1%}"
    yield f"{row.texts_without:,} ({row.texts_without / texts:.1%})"


def _granularity(name: str, texts: Sequence[AnnotatedText]) -> Granularity:
    spans = [text.spans[name] for text in texts]
    characters = _share(sum(map(_covered, spans)), sum(len(text.text) for text in texts))
    tokens = None
    if all(text.tokens is not None for text in texts):
        inside = sum(text.tokens_in_spans[name] for text in texts)
        tokens = _share(inside, sum(len(text.tokens or ()) for text in texts))
    return Granularity(name, sum(map(len, spans)), characters, tokens, sum(not some for some in spans))


def _covered(spans: Sequence[Span]) -> int:
    """Number of characters in some span; spans are sorted by start."""
    covered = reached = 0
    for start, end in spans:
        covered += max(0, end - max(start, reached))
        reached = max(reached, end)
    return covered


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' if count != 1 else ''}"
