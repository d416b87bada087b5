"""Texts with their spans as lines of a terminal, with brackets for every granularity under each line of text.

The brackets are complete without colours, which only make them easier to see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby

import click

from mta_framework.reporting.annotated_text import AnnotatedText, tracks
from mta_framework.tables.terminal_chars import glyph, width
from mta_framework.types import Span

_COLOURS = (("cyan", "blue"), ("yellow", "green"), ("magenta", "red"))
"""Two colours for each granularity, which its spans take in turn, so that spans that touch differ."""

_SHADES = " ░▒▓█"
_LEAST_ROOM = 20


def lines(text: AnnotatedText, columns: int, colour: bool) -> Iterator[str]:
    """The lines of a text, wrapped, with its tokens, spans and weights below each of them.

    Args:
        text: The text.
        columns: Width of the terminal in cells.
        colour: Whether to write escape codes for colours.
    """
    labels = [*text.spans, *(f"{name} weight" for name in text.weights), *(["tokens"] if text.tokens else [])]
    margin = max(map(len, labels), default=0) + 2
    painted = _Painted(text, colour)
    for start, end in _wrapped(text.text, max(columns - margin, _LEAST_ROOM)):
        for label, line in painted.rows(start, end):
            yield f"{label:<{margin}}{line}".rstrip()


def _wrapped(text: str, room: int) -> Iterator[Span]:
    """Character ranges of the lines, which end behind a line break, or else behind a space where there is one."""
    start = used = 0
    for index, character in enumerate(text):
        cells = width(glyph(character))
        while used + cells > room:
            space = text.rfind(" ", start, index)
            end = index if space < start else space + 1
            yield start, end
            start, used = end, sum(width(glyph(rest)) for rest in text[end:index])
        used += cells
        if character == "\n":
            yield start, index + 1
            start, used = index + 1, 0
    if start < len(text) or not text:
        yield start, len(text)


class _Painted:
    def __init__(self, text: AnnotatedText, colour: bool):
        self._text = text
        self._colour = colour
        self._tracks = {name: tracks(spans) for name, spans in text.spans.items()}

    def rows(self, start: int, end: int) -> Iterator[tuple[str, str]]:
        """Labels and lines for one line of the text."""
        shown = [glyph(character) for character in self._text.text[start:end]]
        column = [0, *accumulate(map(width, shown))]
        yield "", self._letters(shown, start)
        if self._text.tokens is not None:
            begins = {column[first - start] for first, _ in self._text.tokens if start <= first < end}
            yield "tokens", "".join("|" if cell in begins else " " for cell in range(column[-1]))
        for index, (name, rows) in enumerate(self._tracks.items()):
            colours = _COLOURS[index % len(_COLOURS)]
            brackets = [line for track in rows if (line := self._brackets(track, start, end, column, colours))]
            yield from zip([name, *[""] * len(brackets)], brackets, strict=False)
        for name, weights in self._text.weights.items():
            cells = zip(weights[start:end], map(width, shown), strict=True)
            yield (
                f"{name} weight",
                "".join(_SHADES[round(weight * (len(_SHADES) - 1))] * wide for weight, wide in cells),
            )

    def _letters(self, shown: Sequence[str], start: int) -> str:
        if not self._colour:
            return "".join(shown)
        colours = [""] * len(shown)
        for index, rows in enumerate(self._tracks.values()):
            for turn, (first, last) in ((turn, span) for track in rows for turn, span in enumerate(track)):
                for position in range(max(first - start, 0), min(last - start, len(shown))):
                    colours[position] = _COLOURS[index % len(_COLOURS)][turn % 2]
        runs = groupby(zip(shown, colours, strict=True), key=lambda pair: pair[1])
        letters = ((colour, "".join(letter for letter, _ in run)) for colour, run in runs)
        return "".join(click.style(run, colour) if colour else run for colour, run in letters)

    def _brackets(
        self, track: Sequence[Span], start: int, end: int, column: Sequence[int], colours: tuple[str, str]
    ) -> str:
        line, reached = "", 0
        for turn, (first, last) in enumerate(track):
            if last <= start or first >= end:
                continue
            left, right = column[max(first, start) - start], column[min(last, end) - start]
            bracket = _bracket(right - left, first >= start, last <= end)
            line += " " * (left - reached) + (click.style(bracket, colours[turn % 2]) if self._colour else bracket)
            reached = right
        return line


def _bracket(cells: int, begins: bool, ends: bool) -> str:
    """A bracket of this many cells, open on each side on which the span continues in another line."""
    if cells == 1 and begins and ends:
        return "┴"
    inner = "─" * (cells - begins - ends)
    return f"{'╰' if begins else ''}{inner}{'╯' if ends else ''}"[:cells]
