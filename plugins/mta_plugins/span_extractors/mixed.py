"""Code, formulas and prose of a text, each by a separate span extractor."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from pydantic import Field

from mta_framework import Overlap, PluginChoice, PluginParams, SpanExtractor, SpanSet
from mta_framework.spans.segments import (
    Excerpt,
    Segment,
    code_segments,
    excerpts_of,
    failures_of,
    formula_segments,
    gaps,
    merged,
    shifted,
    spans_of,
    widest,
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
"""Maximum nesting of blocks; text nested deeper is read as prose."""


class Mixed(SpanExtractor):
    """Passes each segment of a text to the span extractor for its kind: code, formulas or prose.

    Code is the content of fenced blocks, except those tagged as text or Markdown, and of inline backticks. A block is
    passed to ``code`` with its fences, inline code with added fences. In a text without such blocks, two or more
    consecutive lines that look like code are passed to ``code`` unchanged. In the remaining text, formulas between
    LaTeX delimiters and arithmetic without delimiters are passed to ``math``, and all other text to ``prose``. Segments
    do not overlap. Spans and failures are those of the three extractors; each is called once for all segments of all
    texts.
    """

    NAME = "mixed"
    VERSION = "3"

    class Params(PluginParams):
        """Span extractor for each kind of segment."""

        code: PluginChoice = Field(
            PluginChoice(name="code"), description="Span extractor for fenced blocks and inline code."
        )
        math: PluginChoice = Field(
            PluginChoice(name="math"), description="Span extractor for formulas, delimiters included."
        )
        prose: PluginChoice = Field(
            PluginChoice(name="words"),
            description="Span extractor for all other text, e.g. spacy_phrases for phrases in it.",
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
        return widest(kinds)

    def fingerprint(self) -> str:
        return json.dumps([super().fingerprint(), *(part.fingerprint() for part in self._parts)])

    def extract(self, texts: Sequence[str]) -> list[SpanSet]:
        by_part = [spans_of(part, excerpts) for part, excerpts in zip(self._parts, _layouts(texts), strict=True)]
        return [merged(self.granularities, span_sets) for span_sets in zip(*by_part, strict=True)]

    def failures(self, texts: Sequence[str]) -> list[int]:
        counts = [failures_of(part, excerpts) for part, excerpts in zip(self._parts, _layouts(texts), strict=True)]
        return [sum(text_counts) for text_counts in zip(*counts, strict=True)]

    @property
    def _parts(self) -> tuple[SpanExtractor, SpanExtractor, SpanExtractor]:
        return self.code, self.math, self.prose


def _layouts(texts: Sequence[str]) -> list[list[list[Excerpt]]]:
    """For code, formulas and prose each: the excerpts of every text."""
    layouts = [_layout(text) for text in texts]
    return [[layout[part] for layout in layouts] for part in range(3)]


def _layout(text: str) -> tuple[list[Excerpt], list[Excerpt], list[Excerpt]]:
    """Excerpts of code, formulas and prose of a text."""
    code = list(_code(text, 0))
    if not any(segment.notation == "fenced code" for segment in code):
        runs = [run for start, end in gaps(text, code) for run in _unfenced(text, start, end)]
        code = sorted([*code, *runs], key=lambda segment: segment.start)
    formulas = [
        shifted(segment, start) for start, end in gaps(text, code) for segment in formula_segments(text[start:end])
    ]
    prose = gaps(text, sorted([*code, *formulas], key=lambda segment: segment.start))
    whole = [(segment.start, segment.end) for segment in formulas]
    return [_excerpt(text, segment) for segment in code], excerpts_of(text, whole), excerpts_of(text, prose)


def _code(text: str, offset: int, depth: int = 0) -> Iterator[Segment]:
    """Segments of code, also inside of blocks tagged as text or Markdown, down to a few levels."""
    for segment in code_segments(text):
        start, end = segment.inner
        if language_of(segment.tag) in PLAIN_TAGS | MARKDOWN_TAGS:
            if depth < _DEEPEST:
                yield from _code(text[start:end], offset + start, depth + 1)
        elif text[start:end].strip():
            yield shifted(segment, offset)


def _unfenced(text: str, start: int, end: int) -> Iterator[Segment]:
    """Two or more lines that look like code, with cues of a language in lines that contain no formulas."""
    for first, last in code_runs(text[start:end]):
        run = text[start + first : start + last]
        lines = [line for line in run.splitlines() if line.strip()]
        languages = candidates("\n".join(line for line in lines if not formula_segments(line)))
        if len(lines) > 1 and not PERMISSIVE.issuperset(languages):
            whole = start + first, start + last
            yield Segment("fenced code", *whole, whole)


def _excerpt(text: str, segment: Segment) -> Excerpt:
    whole, (start, end) = (segment.start, segment.end), segment.inner
    if segment.notation == "inline code":
        return Excerpt(f"{_FENCE}{text[start:end]}\n{_FENCE}", start - len(_FENCE), (start, end))
    return Excerpt(text[slice(*whole)], segment.start, whole)
