"""Formulas without delimiters, as people type them: ``5 * 3 = 15``, ``<<48/2=24>>``, ``#### 72``, ``y = 2x^2``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mta_framework.spans.segments.segment import Segment, shifted

_AMOUNT = r"(?:\d{1,3}(?:(?:,|\{,\})\d{3})++(?!\d)|\d++)(?:\.\d++)?+|\.\d++"
NUMBER = rf"(?:(?:[$€£¥]|\\\$)?(?:{_AMOUNT})(?:\\?%)?)"
"""One number each in ``1,234.5``, ``$12.50``, ``.5``, ``50%``: with its currency sign or its sign of per cent."""

_BRACES = r"\{(?:[^{}\n]|\{(?:[^{}\n]|\{[^{}\n]*+\})*+\})*+\}"
_GREEK = "alpha|beta|gamma|delta|theta|lambda|mu|pi|sigma|phi|omega|Delta|infty"
_COMMAND = (
    rf"(?:\\(?:[dt]?frac|boxed|binom)(?:{_BRACES})++|\\sqrt(?:\[[^\]\n]*+\])?{_BRACES}|\\(?:{_GREEK})(?![A-Za-z]))"
)
_CALL = r"(?:sin|cos|tan|log|ln|exp|sqrt|max|min|gcd|lcm|abs|mod|[A-Za-z])\([^()\n]{1,80}\)"
_VARIABLE = r"[A-Za-zα-ωΑ-Ω](?:_\{?\w+\}?|\d+)?['′]*(?![^\W_²³¹⁰⁴-⁹ⁿ₀-₉])"
_UNIT = r"(?:[A-Za-z]{1,4}(?![^\W_])|(?:[ \t][A-Za-z]{2,}+){1,3}(?=[ \t]*(?:[+*×÷=/)]|-[ \t]*[$\d(])))"
"""What a number counts: a few letters, or some words where the calculation goes on behind them."""

_ANNOTATION = r"<<[^<>\n]{0,300}>>"
"""The calculator annotation of GSM8K, before the number that it gives."""

_OPERAND = rf"""(?:[-+−±]?
    (?: [$€£¥]?{_ANNOTATION}(?:{NUMBER}{_UNIT}?)? | {_COMMAND} | {_CALL} | √?{NUMBER}{_UNIT}? | √?{_VARIABLE}
      | (?<=/)[A-Za-z]{{2,}}+ )
    [²³¹⁰⁴-⁹ⁿ₀-₉]*(?:!(?=[ \t]*[-+*/=)]))?)"""
_GROUPED = rf"(?:[-+−]?√?[(\[{{][ \t]*){{0,8}}+{_OPERAND}(?:[ \t]*[)\]}}][²³]?){{0,8}}+"

_RELATION = r"(?:==|=>|->|<=|>=|!=|<(?!/?[A-Za-z]+\d?>)|[=>≤≥≠≈≡→⇒]|\\(?:leq?|geq?|neq?|approx)(?![A-Za-z]))"
CROSS = r"(?:(?<=[\d)%])[xX](?=[ \t]*[$\d])|(?<=[\d)%][ ])[xX](?=[ \t]*[$\d]|[ ]\())"
"""The letter that stands for a sign of multiplication."""

_OPERATOR = rf"(?:\*\*|[-+*/×÷·⋅∙^±−]|\\(?:times|cdot|div|pm)(?![A-Za-z])|of(?=[ \t]+[$\d])|{CROSS})"

_RUN = re.compile(
    rf"""
      ^\#\#\#\#[ \t]*(?P<answer> [-−]?{NUMBER} )[ \t]*\r?$
    | (?: (?:(?<=\s)|^)[=≈][ \t]* | (?=<<) | (?<![\w\\/&?@<])(?<!\d[.,]) )
      {_GROUPED} (?: (?:[ \t]*(?:{_RELATION}|{_OPERATOR})[ \t]*|(?=[(])) {_GROUPED} )*
    """,
    re.VERBOSE | re.MULTILINE,
)

_FIRST = re.compile(_GROUPED, re.VERBOSE)
_SURE = re.compile(rf"{_ANNOTATION}|\\[A-Za-z]|[√²³]|{_RELATION}")
_JOINED = re.compile(_OPERATOR)
_JOINED_LETTERS = re.compile(r"[+*×÷^·⋅]")
_NAME = re.compile(r"[\w.,$]+(?:-[\w.,$]+)+|\d+(?:/\d+){2,}")
"""A range, a telephone number, a date, a name: ``10-12``, ``555-1234``, ``1/5/2024``, ``B-52``."""

_CANDIDATE = re.compile(r"[=<>≤≥≠≈≡→⇒^+*×÷·⋅∙±−√²³\\/]|\d[ \t]*-|-[ \t]*[\d$]|[xX][ \t]*[\d$]|of[ \t]+[\d$]|####")
"""What a line without any formula seldom has."""


def arithmetic_segments(text: str) -> Iterator[Segment]:
    """Find formulas without delimiters, each within a line.

    A formula relates or joins numbers, single letters, calls, brackets and a few bare commands of LaTeX; up to three
    words may stand behind a number, where the calculation goes on behind them. Ranges, dates and names with hyphens
    are none, nor is a number by itself, but for the answer behind ``####``.
    """
    start = 0
    for line in text.splitlines(keepends=True):
        if _CANDIDATE.search(line):
            yield from (shifted(found, start) for found in _found(line))
        start += len(line)


def _found(text: str) -> Iterator[Segment]:
    for run in _RUN.finditer(text):
        start, end = run.span()
        cuts = [] if run["answer"] else [start + place for place in _unmatched(run[0])]
        if run["answer"]:
            yield Segment("arithmetic", start, end, run.span("answer"))
        elif cuts:
            for before, after in zip([start - 1, *cuts], [*cuts, end], strict=True):
                yield from (shifted(found, before + 1) for found in _found(text[before + 1 : after]))
        elif length := _length(run[0]):
            yield Segment("arithmetic", start, start + length, (start, start + length))


def _length(run: str) -> int:
    """How much of a run is a formula by itself; 0 if nothing is."""
    alone = _RUN.match(run)
    if not alone:
        return 0
    formula = alone[0]
    if _SURE.search(formula):
        return len(formula)
    first = _FIRST.match(formula)
    rest = formula[first.end() :] if first else ""
    has_digit = any(character.isdigit() for character in formula)
    joined = (_JOINED if has_digit else _JOINED_LETTERS).search(rest)
    return len(formula) if joined and not _NAME.fullmatch(formula) else 0


def _unmatched(run: str) -> list[int]:
    """Brackets without a partner, in order."""
    opened: list[int] = []
    alone: list[int] = []
    for place, character in enumerate(run):
        if character in "([{":
            opened.append(place)
        elif character in ")]}":
            if opened:
                opened.pop()
            else:
                alone.append(place)
    return sorted(alone + opened)
