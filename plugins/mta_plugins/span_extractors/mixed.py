"""Code, formulas and prose of one text, each by an extractor of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from pydantic import Field

from mta_framework import Overlap, PluginChoice, PluginParams, SpanExtractor, SpanSet
from mta_framework.spans.segments import (
    Piece,
    Segment,
    code_segments,
    failures_of,
    formula_segments,
    gaps,
    merged,
    pieces_of,
    shifted,
    spans_of,
)
from mta_framework.spans.segments.languages import (
    MARKDOWN_TAGS,
    PERMISSIVE,
    PLAIN_TAGS,
    candidates,
    code_runs,
    language_of,
)

_FENCE = "```\n"

_DEEPEST = 5
"""Blocks within blocks: what lies deeper is read as prose, however many fences a text opens."""


class Mixed(SpanExtractor):
    """Routes each stretch of a text to the extractor for what it is: code, formulas or prose.

    Code is what stands in fenced blocks, but for those tagged as text or Markdown, and between backticks; a block goes
    to ``code`` with its fences, inline code in fences of its own. In a text without such blocks, so are two lines and
    more that look like code, as they are. Of what is left, formulas between the delimiters of
    LaTeX and arithmetic without any go to ``math``, and all other text to ``prose``. Stretches do not overlap; what
    the parts find and what they cannot parse is theirs. Each part is called once for all stretches of all texts.
    """

    NAME = "mixed"
    VERSION = "2"

    class Params(PluginParams):
        """Who reads what: any span extractors."""

        code: PluginChoice = Field(PluginChoice(name="code"), description="Reads fenced blocks and inline code.")
        math: PluginChoice = Field(PluginChoice(name="math"), description="Reads formulas, with their delimiters.")
        prose: PluginChoice = Field(
            PluginChoice(name="words"), description="Reads all other text; spacy_phrases finds phrases in it."
        )

    params: Params

    def __init__(self, params: Params, code: SpanExtractor, math: SpanExtractor, prose: SpanExtractor):
        super().__init__(params)
        self.code = code
        self.math = math
        self.prose = prose

    @property
    def granularities(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(granularity for part in self._parts for granularity in part.granularities))

    def overlap(self, granularity: str) -> Overlap:
        kinds: list[Overlap] = [part.overlap(granularity) for part in self._parts if granularity in part.granularities]
        return max(kinds, key=["none", "nested", "any"].index, default="any")

    def fingerprint(self) -> str:
        return json.dumps([super().fingerprint(), *(part.fingerprint() for part in self._parts)])

    def require(self) -> str | None:
        return " ".join(dict.fromkeys(filter(None, (part.require() for part in self._parts)))) or None

    def extract(self, texts: Sequence[str]) -> list[SpanSet]:
        found = [spans_of(part, pieces) for part, pieces in zip(self._parts, _layouts(texts), strict=True)]
        return [merged(self.granularities, own) for own in zip(*found, strict=True)]

    def failures(self, texts: Sequence[str]) -> list[int]:
        counts = [failures_of(part, pieces) for part, pieces in zip(self._parts, _layouts(texts), strict=True)]
        return [sum(own) for own in zip(*counts, strict=True)]

    @property
    def _parts(self) -> tuple[SpanExtractor, SpanExtractor, SpanExtractor]:
        return self.code, self.math, self.prose


def _layouts(texts: Sequence[str]) -> list[list[list[Piece]]]:
    """For each part, what it reads of each text."""
    layouts = [_layout(text) for text in texts]
    return [[layout[part] for layout in layouts] for part in range(3)]


def _layout(text: str) -> tuple[list[Piece], list[Piece], list[Piece]]:
    """Code, formulas and prose."""
    code = list(_code(text, 0))
    if not any(segment.notation == "fenced code" for segment in code):
        runs = [run for start, end in gaps(text, code) for run in _unfenced(text, start, end)]
        code = sorted([*code, *runs], key=lambda segment: segment.start)
    formulas = [shifted(found, start) for start, end in gaps(text, code) for found in formula_segments(text[start:end])]
    prose = gaps(text, sorted([*code, *formulas], key=lambda segment: segment.start))
    whole = [(segment.start, segment.end) for segment in formulas]
    return [_piece(text, segment) for segment in code], pieces_of(text, whole), pieces_of(text, prose)


def _code(text: str, offset: int, depth: int = 0) -> Iterator[Segment]:
    """Code, also inside of blocks that are tagged as text or Markdown, down to a few levels."""
    for segment in code_segments(text):
        start, end = segment.inner
        if language_of(segment.tag) in PLAIN_TAGS | MARKDOWN_TAGS:
            if depth < _DEEPEST:
                yield from _code(text[start:end], offset + start, depth + 1)
        elif text[start:end].strip():
            yield shifted(segment, offset)


def _unfenced(text: str, start: int, end: int) -> Iterator[Segment]:
    """Lines that look like code, two at least, and that show a language apart from those with formulas in them."""
    for first, last in code_runs(text[start:end]):
        run = text[start + first : start + last]
        lines = [line for line in run.splitlines() if line.strip()]
        languages = candidates("\n".join(line for line in lines if not formula_segments(line)))
        if len(lines) > 1 and not PERMISSIVE.issuperset(languages):
            whole = start + first, start + last
            yield Segment("fenced code", *whole, whole)


def _piece(text: str, segment: Segment) -> Piece:
    whole, (start, end) = (segment.start, segment.end), segment.inner
    if segment.notation == "inline code":
        return Piece(f"{_FENCE}{text[start:end]}\n{_FENCE}", start - len(_FENCE), (start, end))
    return Piece(text[slice(*whole)], segment.start, whole)
