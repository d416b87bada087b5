"""Finds the code of a text: fenced blocks and inline code, as defined by CommonMark."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mta_framework.spans.segments.segment import Segment

_FENCE = re.compile(
    r"^[ \t]*(?P<marks>(?:(?:>|(?:[-*+]|\d{1,9}[.)])[ \t])[ \t]*)*)"
    r"(?P<fence>`{3,}(?=[^`\n]*$)|~{3,})[ \t]*(?P<tag>[^\s`]*)[^\n]*$",
    re.MULTILINE,
)
"""An opening fence, which may be indented, quoted (``>``) or the first line of a list item."""

_FORMULA_TAGS = {"math", "latex", "tex"}
"""Tags of fenced blocks that hold formulas, not code."""

_TICKS = re.compile(r"`+")

_BEFORE_FENCE = re.compile(r"[^`~]*")

_BLANK_LINE = re.compile(r"\n[ \t\r]*\n")


def code_segments(text: str) -> list[Segment]:
    """Find fenced blocks and inline code.

    An unclosed fence extends to the end of the text, as in a truncated response, or to the end of the block quote that
    contains it; quote marks inside a block are part of ``inner``. Blocks tagged ``math``, ``latex`` or ``tex`` are
    formulas and left out. Inline code is enclosed by two runs of equally many backticks within a paragraph; LaTeX
    quotes (two backticks, closed by two apostrophes) are no inline code.

    Args:
        text: Any string.

    Returns:
        Segments sorted by start, disjoint; ``inner`` is the range between the lines of the fences.
    """
    segments: list[Segment] = []
    at = 0
    while opening := _FENCE.search(text, at):
        segments += _inline(text, at, opening.start())
        block = _block(text, opening)
        if block.tag not in _FORMULA_TAGS:
            segments.append(block)
        at = block.end
    return [*segments, *_inline(text, at, len(text))]


def blank_quote_marks(text: str, segments: Sequence[Segment]) -> str:
    """Replace the quote marks before the lines of quoted fenced blocks by as many spaces.

    Args:
        text: Any string.
        segments: Code segments of the text, as from ``code_segments``.

    Returns:
        The text, of unchanged length.
    """
    parts, at = [], 0
    for segment in segments:
        opening = _BEFORE_FENCE.match(text, segment.start)
        if depth := opening[0].count(">") if opening else 0:
            (start, end), marks = segment.inner, re.compile(rf"^(?:[ \t]*>){{1,{depth}}}", re.MULTILINE)
            parts += [text[at:start], marks.sub(lambda match: " " * len(match[0]), text[start:end])]
            at = end
    return "".join([*parts, text[at:]])


def _block(text: str, opening: re.Match[str]) -> Segment:
    fence, quoted = opening["fence"], ">" in opening["marks"]
    start = opening.start() if quoted else opening.start("fence")
    closes = rf"^[ \t{'>' if quoted else ''}]*{fence[0]}{{{len(fence)},}}[ \t\r]*$"
    if quoted:
        closes += r"|\n(?![ \t]*>)"
    closing = re.compile(closes, re.MULTILINE).search(text, opening.end())
    first = min(opening.end() + 1, len(text))
    last, end = (max(first, closing.start()), closing.end()) if closing else (len(text), len(text))
    return Segment("fenced code", start, max(first, end), (first, last), opening["tag"].lower())


def _inline(text: str, start: int, end: int) -> Iterator[Segment]:
    runs = list(_TICKS.finditer(text, start, end))
    # Runs by length, last first, so that each closing run is found without scanning those in between.
    waiting: dict[int, list[re.Match[str]]] = {}
    for run in reversed(runs):
        waiting.setdefault(len(run[0]), []).append(run)
    for run in runs:
        same = waiting[len(run[0])]
        same.pop()
        # A run inside an earlier segment was consumed with it.
        if run.start() < start or not same:
            continue
        closing = same[-1]
        inner = text[run.end() : closing.start()]
        if _BLANK_LINE.search(inner) or (len(run[0]) == 2 and "''" in inner):
            continue
        start = closing.end()
        yield Segment("inline code", run.start(), closing.end(), (run.end(), closing.start()))
