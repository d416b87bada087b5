"""Finds formulas without delimiters, in plain text: ``5 * 3 = 15``, ``<<48/2=24>>``, ``#### 72``, ``y = 2x^2``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mta_framework.spans.segments.segment import Segment, shifted

_AMOUNT = r"(?:\d{1,3}(?:(?:,|\{,\})\d{3})++(?!\d)|\d++)(?:\.\d++)?+|\.\d++"
NUMBER = rf"(?:(?:[$€£¥]|\\\$)?(?:{_AMOUNT})(?:\\?%)?)"
"""Pattern of a number with its currency or percent sign: ``1,234.5``, ``$12.50``, ``.5``, ``50%``."""

_BRACES = r"\{(?:[^{}\n]|\{(?:[^{}\n]|\{[^{}\n]*+\})*+\})*+\}"
_GREEK = "alpha|beta|gamma|delta|theta|lambda|mu|pi|sigma|phi|omega|Delta|infty"
_COMMAND = (
    rf"(?:\\(?:[dt]?frac|boxed|binom)(?:{_BRACES})++|\\sqrt(?:\[[^\]\n]*+\])?{_BRACES}|\\(?:{_GREEK})(?![A-Za-z]))"
)
_CALL = r"(?:sin|cos|tan|log|ln|exp|sqrt|max|min|gcd|lcm|abs|mod|[A-Za-z])\([^()\n]{1,80}\)"
_VARIABLE = r"[A-Za-zα-ωΑ-Ω](?:_\{?\w+\}?|\d+)?['′]*(?![^\W_²³¹⁰⁴-⁹ⁿ₀-₉])"
_UNIT = r"(?:[A-Za-z]{1,4}(?![^\W_])|(?:[ \t][A-Za-z]{2,}+){1,3}(?=[ \t]*(?:[+*×÷=/)]|-[ \t]*[$\d(])))"
"""A unit after a number: a few letters, or some words if the calculation continues after them."""

_ANNOTATION = r"<<[^<>\n]{0,300}>>"
"""A calculator annotation of GSM8K, which precedes its result."""

_OPERAND = rf"""(?:[-+−±]?
    (?: [$€£¥]?{_ANNOTATION}(?:{NUMBER}{_UNIT}?)? | {_COMMAND} | {_CALL} | √?{NUMBER}{_UNIT}? | √?{_VARIABLE}
      | (?<=/)[A-Za-z]{{2,}}+ )
    [²³¹⁰⁴-⁹ⁿ₀-₉]*(?:!(?=[ \t]*[-+*/=)]))?)"""
_GROUPED = rf"(?:[-+−]?√?[(\[{{][ \t]*){{0,8}}+{_OPERAND}(?:[ \t]*[)\]}}][²³]?){{0,8}}+"

_RELATION = r"(?:==|=>|->|<=|>=|!=|<(?!/?[A-Za-z]+\d?>)|[=>≤≥≠≈≡→⇒]|\\(?:leq?|geq?|neq?|approx)(?![A-Za-z]))"
CROSS = r"(?:(?<=[\d)%])[xX](?=[ \t]*[$\d])|(?<=[\d)%][ ])[xX](?=[ \t]*[$\d]|[ ]\())"
"""Pattern of the letter x as a multiplication sign."""

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
"""A range, telephone number, date or name: ``10-12``, ``555-1234``, ``1/5/2024``, ``B-52``."""

_CANDIDATE = re.compile(r"[=<>≤≥≠≈≡→⇒^+*×÷·⋅∙±−√²³\\/]|\d[ \t]*-|-[ \t]*[\d$]|[xX][ \t]*[\d$]|of[ \t]+[\d$]|####")
"""Characters that a line without formulas rarely has; other lines are skipped."""


def arithmetic_segments(text: str) -> Iterator[Segment]:
    """Find formulas without delimiters, each within one line.

    A formula is numbers, single letters, function calls, brackets and a few bare LaTeX commands, joined by operators or
    relations. Up to three words may follow a number, if the calculation continues after them. Ranges, dates and
    hyphenated names are no formulas, nor is a single number, except the answer after ``####``.

    Args:
        text: Any string.

    Returns:
        Segments with the notation ``arithmetic``, in order, disjoint.
    """
    start = 0
    for line in text.splitlines(keepends=True):
        if _CANDIDATE.search(line):
            yield from (shifted(segment, start) for segment in _segments(line))
        start += len(line)


def _segments(text: str) -> Iterator[Segment]:
    for run in _RUN.finditer(text):
        start, end = run.span()
        split_offsets = [] if run["answer"] else [start + index for index in _unmatched(run[0])]
        if run["answer"]:
            yield Segment("arithmetic", start, end, run.span("answer"))
        elif split_offsets:
            for before, after in zip([start - 1, *split_offsets], [*split_offsets, end], strict=True):
                yield from (shifted(segment, before + 1) for segment in _segments(text[before + 1 : after]))
        elif length := _length(run[0]):
            yield Segment("arithmetic", start, start + length, (start, start + length))


def _length(run: str) -> int:
    """Number of characters at the start of a run that are a formula by themselves; 0 if none are."""
    match = _RUN.match(run)
    if not match:
        return 0
    formula = match[0]
    if _SURE.search(formula):
        return len(formula)
    first = _FIRST.match(formula)
    rest = formula[first.end() :] if first else ""
    has_digit = any(character.isdigit() for character in formula)
    joined = (_JOINED if has_digit else _JOINED_LETTERS).search(rest)
    return len(formula) if joined and not _NAME.fullmatch(formula) else 0


def _unmatched(run: str) -> list[int]:
    """Indices of brackets without a partner, ascending."""
    opened: list[int] = []
    unpaired: list[int] = []
    for index, character in enumerate(run):
        if character in "([{":
            opened.append(index)
        elif character in ")]}":
            if opened:
                opened.pop()
            else:
                unpaired.append(index)
    return sorted(unpaired + opened)
