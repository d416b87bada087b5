"""The page of ``mta spans``, and its spans as coloured strips under the text: no script, as many lines as it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mta_framework.reporting.annotated_text import AnnotatedText, edges, tracks
from mta_framework.reporting.page import render_template
from mta_framework.tables.table import Table

_COLOURS = (("#0b7fab", "#57b8dc"), ("#b26a00", "#e5a23c"), ("#8a3fa8", "#c58be0"), ("#2e7d32", "#7cc47f"))
"""By granularity, for its spans in turn: two that touch can be distinguished."""


@dataclass(frozen=True)
class Strips:
    """Which lines under a text belong to which granularity; the same for all texts of a page.

    Args:
        lines: Granularity -> indices of its lines.
    """

    lines: Mapping[str, range]

    @property
    def total(self) -> int:
        """How many lines there are."""
        return sum(map(len, self.lines.values()))

    def colours(self, index: int) -> tuple[str, str]:
        """The two colours of a granularity, given by its index."""
        return _COLOURS[index % len(_COLOURS)]

    def pieces(self, text: AnnotatedText) -> Iterator[tuple[str, str, tuple[float, ...]]]:
        """One text, cut wherever anything begins or ends.

        Yields:
            A piece of the text, its classes (``s``, and ``t0a`` or ``t0b`` for each strip under it; empty where nothing
            is marked), and its weight by granularity, from 0 to 1.
        """
        marks: list[list[str]] = [[] for _ in text.text]
        for name, spans in text.spans.items():
            for line, track in zip(self.lines[name], tracks(spans), strict=False):
                for turn, (start, end) in enumerate(track):
                    for marked in marks[start:end]:
                        marked.append(f"t{line}{'ab'[turn % 2]}")
        for start, _ in text.tokens or ():
            marks[start].append("b")
        for start, end in pairwise(edges(text)):
            weights = tuple(weight[start] for weight in text.weights.values())
            classes = ["s", *dict.fromkeys(marks[start])] if marks[start] or weights else []
            yield text.text[start:end], " ".join(classes), weights


def strips(texts: Sequence[AnnotatedText]) -> Strips:
    """Lines enough for these texts, which have the same granularities; a granularity has at least one."""
    lines, first = {}, 0
    for name in texts[0].spans:
        depth = max(1, *(len(tracks(text.spans[name])) for text in texts))
        lines[name] = range(first, first + depth)
        first += depth
    return Strips(lines)


def spans_page(title: str, texts: Sequence[AnnotatedText], table: Table, notes: Sequence[str]) -> str:
    """The page, as HTML.

    Args:
        title: Title of the page.
        texts: The texts to show, at least one; all have the same granularities.
        table: Statistics of these texts, or of more.
        notes: What the table does not say, a sentence each.
    """
    values = {"strips": strips(texts), "texts": texts, "table": table, "notes": notes}
    return render_template("spans.html", title=title, sections=[], **values)
