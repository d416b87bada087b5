"""Statistics of the spans in many texts: counts, coverage, failures and the speed of parsing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mta_framework.errors import counted
from mta_framework.reporting.annotated_text import AnnotatedText
from mta_framework.tables.table import Table
from mta_framework.types import Span


def statistics_table(texts: Sequence[AnnotatedText]) -> Table:
    """Count the spans of some texts, in a table with a row for each granularity.

    Args:
        texts: The texts, at least one; where all of them have tokens, the tokens in spans are counted too.
    """
    tokenized = all(text.tokens is not None for text in texts)
    header = ["spans", "number", "per text", "characters in them", *["tokens in them"] * tokenized, "texts without"]
    rows = [[name, *_cells(name, texts, tokenized)] for name in texts[0].spans]
    return Table(header, rows, "Spans by granularity")


def statistics_notes(failures: Sequence[int], parsed: Sequence[AnnotatedText], seconds: float) -> Iterator[str]:
    """What the table does not say, a sentence each.

    Args:
        failures: For each text of the table, the number of its segments that could not be parsed.
        parsed: Texts whose parsing was timed.
        seconds: How long one process took to parse these, without the time that loading its parser takes.
    """
    yield f"Counted over {counted(len(failures), 'text')}."
    if any(failures):
        failed, in_texts = counted(sum(failures), "segment"), counted(sum(map(bool, failures)), "text")
        yield f"Could not be parsed and have no spans: {failed} in {in_texts}."
    else:
        yield "Everything could be parsed."
    if seconds > 0:
        characters = sum(len(text.text) for text in parsed)
        rates = f"{_rate(len(parsed) / seconds)} texts/s, {_rate(characters / seconds)} characters/s"
        yield f"Parsing: {rates} in one process with its parser loaded ({counted(len(parsed), 'text')})."


def _cells(name: str, texts: Sequence[AnnotatedText], tokenized: bool) -> Iterator[str]:
    spans = [text.spans[name] for text in texts]
    yield f"{sum(map(len, spans)):,}"
    yield f"{sum(map(len, spans)) / len(texts):.1f}"
    yield _share(sum(map(_covered, spans)), sum(len(text.text) for text in texts))
    if tokenized:
        yield _share(sum(text.tokens_in_spans[name] for text in texts), sum(len(text.tokens or ()) for text in texts))
    without = sum(not some for some in spans)
    yield f"{without:,} ({without / len(texts):.1%})"


def _covered(spans: Sequence[Span]) -> int:
    """Number of characters in some span; spans are sorted by start."""
    covered = reached = 0
    for start, end in spans:
        covered += max(0, end - max(start, reached))
        reached = max(reached, end)
    return covered


def _share(part: int, whole: int) -> str:
    return f"{part / whole if whole else 0.0:.1%}"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
