"""Symbols, numbers and terms of formulas, by a recursive descent parser."""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pydantic import Field

from mta_framework import Overlap, PluginChoice, PluginParams, Span, SpanExtractor, SpanSet
from mta_framework.spans.segments import (
    NUMBER,
    Segment,
    Token,
    failures_within,
    formula_segments,
    formula_tokens,
    gaps,
    merged,
    spans_within,
    widest,
)


class Math(SpanExtractor):
    r"""Symbols and numbers of formulas as words; their terms, fractions and sides of equations as phrases.

    Formulas are text between LaTeX delimiters (``\( \)``, ``\[ \]``, ``$ $``, ``$$ $$``, environments of displayed
    formulas), and arithmetic without delimiters (``5 * 3 = 15``, ``<<48/2=24>>``, ``#### 72``). All other text goes to
    ``prose``; a number that its words would split is one word (``1,234.50``).

    Words are numbers, symbols with a plain index (``x_1``, ``\mathbb{R}``), functions and the words of a text in a
    formula; operators, relations and brackets are no words. Phrases are terms, fractions, powers, roots, functions with
    their argument and whole sums, each of at least two words, and the sides of equations of any length. Phrases are
    nested or disjoint.

    A formula that cannot be parsed (a bracket or an argument is missing) yields no spans and counts as a failure.
    """

    NAME = "math"
    VERSION = "2"

    class Params(PluginParams):
        """Extractor for the text outside of formulas."""

        prose: PluginChoice = Field(
            PluginChoice(name="words"), description="Span extractor for the text outside of formulas."
        )

    params: Params

    def __init__(self, params: Params, prose: SpanExtractor):
        super().__init__(params)
        self.prose = prose

    @property
    def granularities(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(["words", "phrases", *self.prose.granularities]))

    def overlap(self, granularity: str) -> Overlap:
        kinds: list[Overlap] = ["nested" if granularity == "phrases" else "none"]
        kinds += [self.prose.overlap(granularity)] if granularity in self.prose.granularities else []
        return widest(kinds)

    def fingerprint(self) -> str:
        return json.dumps([super().fingerprint(), self.prose.fingerprint()])

    def extract(self, texts: Sequence[str]) -> list[SpanSet]:
        readings = [_read(text) for text in texts]
        prose = spans_within(self.prose, texts, [reading.prose for reading in readings])
        return [
            merged(self.granularities, [reading.spans, _with_numbers(prose_spans, reading.numbers)])
            for reading, prose_spans in zip(readings, prose, strict=True)
        ]

    def failures(self, texts: Sequence[str]) -> list[int]:
        readings = [_read(text) for text in texts]
        prose = failures_within(self.prose, texts, [reading.prose for reading in readings])
        return [reading.failures + prose_failures for reading, prose_failures in zip(readings, prose, strict=True)]


class _Reading(NamedTuple):
    """Spans of the formulas of a text, ranges of its prose, numbers in the prose, formulas that could not be parsed."""

    spans: SpanSet
    prose: list[Span]
    numbers: list[Span]
    failures: int


def _read(text: str) -> _Reading:
    segments = formula_segments(text)
    words: list[Span] = []
    phrases: list[Span] = []
    failures = 0
    for segment in segments:
        try:
            parsers = _parsed(text, segment)
        except _Unparsable:
            failures += 1
            continue
        words += (span for parser in parsers for span in parser.words)
        phrases += {span for parser in parsers for span in parser.phrases}
    prose = gaps(text, segments)
    numbers = [match.span() for part in prose for match in _LONE_NUMBER.finditer(text, *part)]
    return _Reading({"words": words, "phrases": phrases}, prose, numbers, failures)


_LONE_NUMBER = re.compile(rf"(?=[$€£¥\\.\d])(?<![\w.,/\\-]){NUMBER}(?!\w|-\w)")


def _with_numbers(spans: SpanSet, numbers: Sequence[Span]) -> SpanSet:
    """Spans of prose in which numbers are words: they replace words inside of them, but not longer words."""
    if not numbers:
        return spans
    starts, ends = zip(*numbers, strict=True)
    inside: dict[Span, int] = {}
    taken: set[int] = set()
    for word in spans.get("words", ()):
        first, behind = bisect_right(ends, word[0]), bisect_left(starts, word[1])
        if behind - first == 1 and starts[first] <= word[0] and word[1] <= ends[first]:
            inside[word] = first
        else:
            taken.update(range(first, behind))
    kept = [word for word in spans.get("words", ()) if word not in inside or inside[word] in taken]
    return {**spans, "words": kept + [number for index, number in enumerate(numbers) if index not in taken]}


def _parsed(text: str, segment: Segment) -> list[_Parser]:
    if segment.notation == "unclosed":
        raise _Unparsable
    tokens = formula_tokens(text, segment.inner, segment.notation)
    if segment.notation == "latex":
        return [_Parser(tokens)]
    # Calculator annotations of GSM8K occur inside formulas without being part of them.
    notes = list(_ANNOTATION.finditer(text, *segment.inner))
    outside = [token for token in tokens if not any(note.start() <= token.start < note.end() for note in notes)]
    return [_Parser(outside), *(_Parser(formula_tokens(text, note.span(1), "arithmetic")) for note in notes)]


class _Unparsable(Exception):
    """The formula has no structure: a bracket or an argument is missing."""


_TEXT_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_ANNOTATION = re.compile(r"<<([^<>\n]*)>>")

_DEEPEST = 40
"""Maximum nesting of brackets; formulas nested deeper are not parsed."""

_PLAIN = {"symbol", "name", "number", "text", "function"}
_LETTER_FUNCTIONS = set("fghFGHPE")


class _Node(NamedTuple):
    """A part of a formula; ``compound`` if it is a phrase."""

    start: int
    end: int
    compound: bool = False


class _Parser:
    """Recursive descent parser: lists of relations of sums of products of factors with scripts.

    Operators without an operand are skipped, since lines of aligned equations begin or end with one.

    Attributes:
        words: Spans of words, in order, disjoint.
        phrases: Spans of phrases, nested or disjoint, some of them repeated.
    """

    def __init__(self, tokens: Sequence[Token]):
        self.words: list[Span] = []
        self.phrases: list[Span] = []
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._list()
        if self._at < len(tokens):
            raise _Unparsable

    def _list(self) -> None:
        """Relations with separators between them, up to a closing token or the end."""
        while True:
            self._relation()
            if self._kind() == "conjunction":
                self._text(self._next())
            elif self._kind() == "separator":
                self._next()
            else:
                return

    def _relation(self) -> None:
        sides = [self._sum()]
        while self._kind() == "relation":
            self._next()
            sides.append(self._sum())
        if len(sides) > 1:
            self.phrases += [(side.start, side.end) for side in sides if side]

    def _sum(self) -> _Node | None:
        terms: list[_Node] = []
        while True:
            signs = self._signs()
            term = self._product()
            if term is None:
                return self._phrase(terms)
            # Between two terms the first sign is an operator.
            unary = signs[1:] if terms else signs
            terms.append(self._phrase([term._replace(start=unary[0].start) if unary else term]) or term)
            if self._kind() != "sign":
                return self._phrase(terms)

    def _product(self) -> _Node | None:
        parts: list[_Node] = []
        while True:
            factors: list[_Node] = []
            while factor := self._factor():
                factors.append(factor)
            # Juxtaposition (``2x``, ``5 apples``) binds closer than an operator.
            parts += [joined] if (joined := _joined(factors)) else []
            if self._kind() != "times":
                return _joined([self._phrase([part]) or part for part in parts] if len(parts) > 1 else parts)
            self._next()
            self._signs()

    def _factor(self) -> _Node | None:
        """A number, symbol, bracket or command with its scripts and arguments; None before an operator or the end."""
        token = self._peek()
        if token is None:
            return None
        if token.kind in {"function", "sum"}:
            return self._applied(self._next())
        base = self._base(token)
        if base is None:
            return None
        base = self._scripted(base)
        is_function = token.kind == "name" or token.text in _LETTER_FUNCTIONS
        if is_function and self._kind() == "open" and self._tokens[self._at].start == base.end:
            return self._phrase([base, self._bracket()])
        return base

    def _base(self, token: Token) -> _Node | None:
        if token.kind in {"symbol", "name"}:
            return self._symbol(self._next())
        if token.kind == "number":
            return self._word(self._next())
        if token.kind == "text":
            return self._text(self._next())
        if token.kind in {"open", "lbrace", "begin"}:
            return self._bracket()
        if token.kind in {"fraction", "root", "style", "wrapper"}:
            return self._command(self._next())
        return None

    def _command(self, token: Token) -> _Node:
        plain = self._plain_argument() if token.kind == "style" else None
        if plain:
            return self._symbol(token._replace(end=plain.end))
        self._enter()
        following = self._peek()
        if token.kind == "root" and following and following.text == "[":
            self._bracket()
        first = self._argument()
        last = self._argument() if token.kind == "fraction" else first
        self._depth -= 1
        node = _Node(token.start, last.end, token.kind in {"fraction", "root"} or first.compound)
        return node if token.kind == "wrapper" else self._phrase([node]) or node

    def _plain_argument(self) -> Token | None:
        """Skip an argument of letters and numbers and return its last token; return None for any other argument."""
        index = self._at
        if self._kind() == "lbrace":
            index += 1
            while index < len(self._tokens) and self._tokens[index].kind in _PLAIN | {"separator", "prime"}:
                index += 1
        expected = {"rbrace"} if index > self._at else _PLAIN
        if index == len(self._tokens) or self._tokens[index].kind not in expected:
            return None
        self._at = index + 1
        return self._tokens[index]

    def _argument(self) -> _Node:
        signs = self._signs()
        token = self._peek()
        node = self._base(token) if token else None
        if node is None and token and token.kind in {"times", "relation", "prime", "function"}:
            self._next()
            node = _Node(token.start, token.end)
        if node is None and signs:
            node = _Node(signs[-1].start, signs[-1].end)
        if node is None:
            raise _Unparsable
        return node._replace(start=signs[0].start if signs else node.start)

    def _symbol(self, token: Token) -> _Node:
        """A symbol with primes and a plain index is one word."""
        end = token.end
        while self._kind() in {"prime", "below"}:
            end = self._next().end
        following = self._peek()
        if following and following.text == "_":
            start = self._at
            self._next()
            index = self._plain_argument()
            if index:
                end = index.end
            else:
                self._at = start
        self.words.append((token.start, end))
        return _Node(token.start, end)

    def _scripted(self, base: _Node) -> _Node:
        start, end, compound = base
        while (kind := self._kind()) in {"script", "above", "below", "factorial", "prime"}:
            token = self._next()
            end = self._argument().end if kind == "script" else token.end
            if kind in {"above", "below"}:
                self.words.append((token.start, token.end))
            compound = compound or kind != "prime"
        node = _Node(start, end, compound)
        return node if node == base else self._phrase([node]) or node

    def _applied(self, token: Token) -> _Node:
        """A function with its argument: a bracket, or the factors up to the next operator or function."""
        self._enter()
        name = self._scripted(self._word(token))
        if token.kind == "sum":
            argument = self._product()
            arguments = [self._phrase([argument])] if argument else []
        elif self._kind() in {"open", "lbrace"}:
            arguments = [self._factor()]
        else:
            arguments = []
            while self._kind() not in {"function", "sum"} and (factor := self._factor()):
                arguments.append(factor)
        self._depth -= 1
        return self._phrase([name, *arguments]) or name

    def _bracket(self) -> _Node:
        token = self._next()
        self._enter()
        self._list()
        self._depth -= 1
        last = self._next()
        if last.kind != {"open": "close", "lbrace": "rbrace", "begin": "end"}[token.kind]:
            raise _Unparsable
        return _Node(token.start, last.end)

    def _text(self, token: Token) -> _Node:
        matches = _TEXT_WORD.finditer(token.text, token.text.index("{"))
        self.words += [(token.start + match.start(), token.start + match.end()) for match in matches]
        return _Node(token.start, token.end)

    def _word(self, token: Token) -> _Node:
        self.words.append((token.start, token.end))
        return _Node(token.start, token.end)

    def _phrase(self, nodes: Iterable[_Node | None]) -> _Node | None:
        """Join nodes into one, recorded as a phrase if it is compound; None without any."""
        joined = _joined([node for node in nodes if node])
        if joined and joined.compound:
            self.phrases.append((joined.start, joined.end))
        return joined

    def _signs(self) -> list[Token]:
        signs = []
        while self._kind() == "sign":
            signs.append(self._next())
        return signs

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _Unparsable

    def _peek(self) -> Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _kind(self) -> str:
        token = self._peek()
        return token.kind if token else ""

    def _next(self) -> Token:
        if self._at == len(self._tokens):
            raise _Unparsable
        self._at += 1
        return self._tokens[self._at - 1]


def _joined(nodes: Sequence[_Node]) -> _Node | None:
    if not nodes:
        return None
    return _Node(nodes[0].start, nodes[-1].end, len(nodes) > 1 or nodes[0].compound)
