"""Where the formulas of a text are: between LaTeX's delimiters, and arithmetic without any."""

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
"""From behind an opening dollar to the next one that is not escaped."""

_BLANK_LINE = re.compile(r"\n[ \t\r]*\n")

_NOTATION = re.compile(r"\\[A-Za-z]|[=^_]")
"""What a formula that was cut off has, and a stray delimiter has not."""

_TEXT_IN_FORMULA = re.compile(r"\\(?:text|mbox|textrm|textbf|textit|mathrm|operatorname)\*?\s*\{[^{}]*\}")

_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}[,.;]?\s+[A-Za-z]{2,}(?![A-Za-z])")
"""Two words in a row."""

_AMOUNT_AND_MORE = re.compile(
    r"\d[\d.,]*+(?:[A-Za-z]*\s+(?:[A-Za-z]+\s+)*?[A-Za-z]{2,}(?![A-Za-z])|.*[-+*/=(]$)", re.DOTALL
)
_BEGINS_ANOTHER = re.compile(r"\d|<<|[A-Z_]{2}|\{")
"""Behind the second dollar: a sum of money, perhaps behind GSM8K's annotation, or a variable of a shell."""


def formula_segments(text: str) -> list[Segment]:
    r"""Find formulas.

    Between ``\( \)``, ``\[ \]``, ``$$ $$``, in the environments of displayed formulas, in blocks fenced as ``math``,
    ``latex`` or ``tex``, and between single dollars: behind the first and before the second stands no white space, no
    digit or name follows the second, and no prose lies between them, so that sums of money are none. A formula ends
    before a blank line; one whose delimiter is never closed is ``unclosed`` up to there. In what is left, arithmetic.

    Args:
        text: Any string.

    Returns:
        Sorted, apart from each other.
    """
    delimited = _delimited(text) if _DELIMITER.search(text) else []
    arithmetic = [
        shifted(found, start) for start, end in gaps(text, delimited) for found in arithmetic_segments(text[start:end])
    ]
    return sorted([*delimited, *arithmetic], key=lambda segment: segment.start)


def _delimited(text: str) -> list[Segment]:
    segments: list[Segment] = []
    stray: dict[str, int] = {}
    at = 0
    while opening := _OPENING.search(text, at):
        found = _stretch(text, opening, stray)
        if found:
            segments.append(found)
        at = found.end if found else opening.end()
    return segments


def _stretch(text: str, opening: re.Match[str], stray: dict[str, int]) -> Segment | None:
    """What a delimiter opens; ``stray`` keeps where the paragraph ends in which its kind opens nothing."""
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
    found = re.compile(rf"(?P<closing>{closing})|\n[ \t\r]*\n").search(text, opening.end())
    if found and found["closing"]:
        return Segment("latex", opening.start(), found.end(), (opening.end(), found.start()))
    limit = found.start() if found else len(text)
    if _NOTATION.search(text, opening.end(), limit):
        return Segment("unclosed", opening.start(), limit, (opening.end(), limit))
    stray[closing] = limit
    return None


def _between_dollars(text: str, start: int) -> Segment | None:
    found = _DOLLAR.match(text, start)
    if not found:
        return None
    end, body = found.end(), found[0][:-1]
    if body[-1].isspace() or _BEGINS_ANOTHER.match(text, end) or _BLANK_LINE.search(body):
        return None
    plain = _TEXT_IN_FORMULA.sub(r"\\text", body)
    if _PROSE.search(plain) or _AMOUNT_AND_MORE.match(plain):
        return None
    return Segment("latex", start - 1, end, (start, end - 1))


def _fenced(text: str, opening: re.Match[str]) -> Segment:
    closing = re.compile(rf"^[ \t]*{re.escape(opening['fence'])}[ \t\r]*$", re.MULTILINE).search(text, opening.end())
    first = min(opening.end() + 1, len(text))
    if not closing:
        return Segment("unclosed", opening.start("fence"), len(text), (first, len(text)))
    return Segment("latex", opening.start("fence"), closing.end(), (first, max(first, closing.start())))
