"""What spans of many texts come to."""

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
        name: The granularity.
        spans: How many there are.
        characters: Share of all characters that lie in some span.
        tokens: Likewise of tokens; None where texts were not tokenised.
        texts_without: Texts without such a span.
    """

    name: str
    spans: int
    characters: float
    tokens: float | None
    texts_without: int


@dataclass(frozen=True)
class Speed:
    """How long one process took to parse texts, its parser being loaded."""

    texts: int
    characters: int
    seconds: float


@dataclass(frozen=True)
class Statistics:
    """What was counted.

    Args:
        texts: How many.
        granularities: In the order of the extractor.
        failures: Stretches that could not be parsed.
        texts_with_failures: Texts that have some.
        speed: Of parsing.
    """

    texts: int
    granularities: tuple[Granularity, ...]
    failures: int
    texts_with_failures: int
    speed: Speed


def statistics(texts: Sequence[AnnotatedText], failures: Sequence[int], speed: Speed) -> Statistics:
    """Count.

    Args:
        texts: At least one.
        failures: Of each text.
        speed: Of parsing.
    """
    counted = tuple(_granularity(name, texts) for name in texts[0].spans)
    return Statistics(len(texts), counted, sum(failures), sum(count > 0 for count in failures), speed)


def statistics_table(found: Statistics) -> Table:
    """A row for each granularity."""
    tokenised = all(granularity.tokens is not None for granularity in found.granularities)
    header = ["spans", "number", "per text", "characters in them", *["tokens in them"] * tokenised, "texts without"]
    rows = []
    for one in found.granularities:
        tokens = () if one.tokens is None else (f"{one.tokens:.1%}",)
        without = f"{one.texts_without:,} ({one.texts_without / found.texts:.1%})"
        counts = f"{one.spans:,}", f"{one.spans / found.texts:.1f}", f"{one.characters:.1%}"
        rows.append([one.name, *counts, *tokens, without])
    return Table(header, rows, "Spans by granularity")


def notes(found: Statistics) -> Iterator[str]:
    """What the table does not say, a sentence each."""
    yield f"Counted over {_counted(found.texts, 'text')}."
    if found.failures:
        places = f"{_counted(found.failures, 'stretch', 'es')} in {_counted(found.texts_with_failures, 'text')}"
        yield f"Not parsed, and so without spans: {places}."
    else:
        yield "No stretch was left unparsed."
    speed = found.speed
    if speed.seconds > 0:
        rates = f"{_rate(speed.texts / speed.seconds)} texts/s, {_rate(speed.characters / speed.seconds)} characters/s"
        yield f"Parsing: {rates} in one process, the parser being loaded ({_counted(speed.texts, 'text')})."


def _granularity(name: str, texts: Sequence[AnnotatedText]) -> Granularity:
    characters = sum(len(text.text) for text in texts)
    covered = sum(_covered(text.spans[name]) for text in texts)
    tokens = None
    if all(text.tokens is not None for text in texts):
        tokens = _share(
            sum(text.tokens_in_spans[name] for text in texts), sum(len(text.tokens or ()) for text in texts)
        )
    without = sum(not text.spans[name] for text in texts)
    return Granularity(name, sum(len(text.spans[name]) for text in texts), _share(covered, characters), tokens, without)


def _covered(spans: Sequence[Span]) -> int:
    covered = reached = 0
    for start, end in spans:
        covered += max(0, end - max(start, reached))
        reached = max(reached, end)
    return covered


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _counted(number: int, noun: str, ending: str = "s") -> str:
    return f"{number:,} {noun}{ending if number != 1 else ''}"
