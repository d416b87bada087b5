"""Stretches of a text that are written in another notation than prose: code and formulas. No torch.

For span extractors that leave such stretches, or what lies around them, to other extractors::

    found = [formula_stretches(text) for text in texts]
    around = [gaps(text, stretches) for text, stretches in zip(texts, found)]
    prose = spans_within(self.prose, texts, around)
"""

from __future__ import annotations

from mta_framework.spans.segments.arithmetic import NUMBER
from mta_framework.spans.segments.code import code_segments, unquoted
from mta_framework.spans.segments.dispatch import (
    Piece,
    failures_of,
    failures_within,
    gaps,
    merged,
    pieces_of,
    spans_of,
    spans_within,
)
from mta_framework.spans.segments.formulas import formula_segments
from mta_framework.spans.segments.segment import Segment, shifted
from mta_framework.spans.segments.tokens import Token, formula_tokens

__all__ = [
    "NUMBER",
    "Piece",
    "Segment",
    "Token",
    "code_segments",
    "failures_of",
    "failures_within",
    "formula_segments",
    "formula_tokens",
    "gaps",
    "merged",
    "pieces_of",
    "shifted",
    "spans_of",
    "spans_within",
    "unquoted",
]
