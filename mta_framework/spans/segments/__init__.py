"""Segments of a text that are code or formulas rather than prose. No torch.

For span extractors that pass such segments, or the text between them, to other extractors::

    segments = [formula_segments(text) for text in texts]
    prose = [gaps(text, text_segments) for text, text_segments in zip(texts, segments)]
    span_sets = spans_within(self.prose, texts, prose)
"""

from __future__ import annotations

from mta_framework.spans.segments.arithmetic import NUMBER
from mta_framework.spans.segments.code_segments import blank_quote_marks, code_segments
from mta_framework.spans.segments.dispatch import (
    Excerpt,
    excerpts_of,
    failures_of,
    failures_within,
    gaps,
    merged,
    spans_of,
    spans_within,
    widest,
)
from mta_framework.spans.segments.formula_tokens import Token, formula_tokens
from mta_framework.spans.segments.formulas import formula_segments
from mta_framework.spans.segments.segment import Segment, shifted

__all__ = [
    "NUMBER",
    "Excerpt",
    "Segment",
    "Token",
    "blank_quote_marks",
    "code_segments",
    "excerpts_of",
    "failures_of",
    "failures_within",
    "formula_segments",
    "formula_tokens",
    "gaps",
    "merged",
    "shifted",
    "spans_of",
    "spans_within",
    "widest",
]
