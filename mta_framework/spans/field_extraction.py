"""Extracts spans field by field: each field of a prompt is parsed alone, template text between fields only once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from mta_framework.spans.extraction import SpanArrays

Extract = Callable[[Sequence[str], Sequence[int]], list[SpanArrays]]
"""Extracts the spans of texts, given with their indices in the data set; see ``extraction.extract``."""


def extract_by_field(texts: Sequence[str], boundaries: Sequence[Sequence[int]], extract: Extract) -> list[SpanArrays]:
    """Split texts at the boundaries of their fields and extract the spans of each part.

    Equal parts are parsed once. No span crosses a boundary.

    Args:
        texts: Any strings.
        boundaries: For each text, the character offsets to split it at, ascending; empty to parse it as a whole.
        extract: Extracts the spans of parts. The index given with a part is that of the first text that contains it.

    Returns:
        For each text, granularity -> (K, 2) int32 half-open character ranges into the whole text.
    """
    first_text: dict[str, int] = {}
    for index, (text, text_boundaries) in enumerate(zip(texts, boundaries, strict=True)):
        for start, end in part_ranges(text, text_boundaries):
            first_text.setdefault(text[start:end], index)
    part_spans = dict(zip(first_text, extract(list(first_text), list(first_text.values())), strict=True))
    return [
        _joined([(start, part_spans[text[start:end]]) for start, end in part_ranges(text, text_boundaries)])
        for text, text_boundaries in zip(texts, boundaries, strict=True)
    ]


def part_ranges(text: str, boundaries: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Return the character ranges of the parts that boundaries split a text into; without any, one range.

    Args:
        text: Any string.
        boundaries: Character offsets, ascending.
    """
    return pairwise((0, *boundaries, len(text)))


def _joined(parts: Sequence[tuple[int, SpanArrays]]) -> SpanArrays:
    if len(parts) == 1:
        return parts[0][1]
    granularities = parts[0][1]
    return {name: np.concatenate([spans[name] + start for start, spans in parts]) for name in granularities}
