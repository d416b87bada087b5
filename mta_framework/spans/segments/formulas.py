"""Finds the formulas of a text: LaTeX between delimiters, and arithmetic without delimiters."""

from __future__ import annotations

import re

from mta_framework.spans.segments.arithmetic import arithmetic_segments
from mta_framework.spans.segments.dispatch import gaps
from mta_framework.spans.segments.segment import Segment, shifted

_ENVIRONMENTS = "equation|align|alignat|flalign|gather|multline|eqnarray|displaymath|math"

_OPENING = re.compile(
    rf"""
      \\\\(?![(\[]) | \\\$                                  # a line break, an escaped dollar: nothing opens
    | (?P<paren> \\\( ) | (?P<bracket> \\\[ ) | (?P<dollars> \$\$ )
    | (?P<dollar> \$ (?![\s$]) )
    | \\begin\{{ (?P<environment> (?:{_ENVIRONMENTS})\*? ) \}}
    | ^ [ \t]* (?P<fence> `{{3,}} | ~{{3,}} ) [ \t]* (?:math|latex|tex) [ \t\r]* $
    """,
    re.VERBOSE | re.MULTILINE | re.IGNORECASE,
)

_DELIMITER = re.compile(r"[$\\]|```|~~~")

_CLOSING = {"paren": r"\\\)", "bracket": r"\\\]", "dollars": r"(?<!\\)\$\$"}

_DOLLAR = re.compile(r"(?:[^$\\]|\\.)++\$", re.DOTALL)
"""Text after an opening dollar, up to and including the next one that is not escaped."""

_BLANK_LINE = re.compile(r"\n[ \t\r]*\n")

_NOTATION = re.compile(r"\\[A-Za-z]|[=^_]")
"""Notation of formulas: tells a truncated formula from a stray delimiter."""

_TEXT_IN_FORMULA = re.compile(r"\\(?:text|mbox|textrm|textbf|textit|mathrm|operatorname)\*?\s*\{[^{}]*\}")

_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}[,.;]?\s+[A-Za-z]{2,}(?![A-Za-z])")
"""Two words in a row."""

_AMOUNT_AND_MORE = re.compile(
    r"\d[\d.,]*+(?:[A-Za-z]*\s+(?:[A-Za-z]+\s+)*?[A-Za-z]{2,}(?![A-Za-z])|.*[-+*/=(]$)", re.DOTALL
)
_BEGINS_ANOTHER = re.compile(r"\d|<<|[A-Z_]{2}|\{")
"""Text after the second dollar that makes it open something else: an amount of money, perhaps after a GSM8K annotation,
or a shell variable."""


def formula_segments(text: str) -> list[Segment]:
    r"""Find the formulas of a text.

    LaTeX formulas are delimited by ``\( \)``, ``\[ \]``, ``$$ $$``, an environment of displayed formulas, the fences of
    a block tagged ``math``, ``latex`` or ``tex``, or by single dollars. To exclude amounts of money, single dollars
    must have no white space on their inner sides, no prose between them, and no digit or name after the second. A
    formula ends before a blank line; where its delimiter is not closed, it is ``unclosed`` up to there. In the
    remaining text, arithmetic without delimiters is searched for.

    Args:
        text: Any string.

    Returns:
        Segments sorted by start, disjoint.
    """
    delimited = _delimited(text) if _DELIMITER.search(text) else []
    arithmetic = [
        shifted(segment, start)
        for start, end in gaps(text, delimited)
        for segment in arithmetic_segments(text[start:end])
    ]
    return sorted([*delimited, *arithmetic], key=lambda segment: segment.start)


def _delimited(text: str) -> list[Segment]:
    segments: list[Segment] = []
    stray: dict[str, int] = {}
    at = 0
    while opening := _OPENING.search(text, at):
        segment = _delimited_segment(text, opening, stray)
        if segment:
            segments.append(segment)
        at = segment.end if segment else opening.end()
    return segments


def _delimited_segment(text: str, opening: re.Match[str], stray: dict[str, int]) -> Segment | None:
    """The segment that a delimiter opens; ``stray`` records up to where its kind is known to open none."""
    kind = opening.lastgroup
    if kind is None:
        return None
    if kind == "dollar":
        return _between_dollars(text, opening.end())
    if kind == "fence":
        return _fenced(text, opening)
    closing = _CLOSING.get(kind) or rf"\\end\{{{re.escape(opening[kind])}\}}"
    if opening.start() < stray.get(closing, 0):
        return None
    match = re.compile(rf"(?P<closing>{closing})|\n[ \t\r]*\n").search(text, opening.end())
    if match and match["closing"]:
        return Segment("latex", opening.start(), match.end(), (opening.end(), match.start()))
    limit = match.start() if match else len(text)
    if _NOTATION.search(text, opening.end(), limit):
        return Segment("unclosed", opening.start(), limit, (opening.end(), limit))
    stray[closing] = limit
    return None


def _between_dollars(text: str, start: int) -> Segment | None:
    match = _DOLLAR.match(text, start)
    if not match:
        return None
    end, body = match.end(), match[0][:-1]
    if body[-1].isspace() or _BEGINS_ANOTHER.match(text, end) or _BLANK_LINE.search(body):
        return None
    plain = _TEXT_IN_FORMULA.sub(r"\\text", body)
    if _PROSE.search(plain) or _AMOUNT_AND_MORE.match(plain):
        return None
    return Segment("latex", start - 1, end, (start, end - 1))


def _fenced(text: str, opening: re.Match[str]) -> Segment:
    fence = opening["fence"]
    closing = re.compile(rf"^[ \t]*{fence[0]}{{{len(fence)},}}[ \t\r]*$", re.MULTILINE).search(text, opening.end())
    first = min(opening.end() + 1, len(text))
    if not closing:
        return Segment("unclosed", opening.start("fence"), len(text), (first, len(text)))
    return Segment("latex", opening.start("fence"), closing.end(), (first, max(first, closing.start())))
