"""Parses texts piece by piece: each field of a prompt for itself, and the template between the fields once for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from mta_framework.spans.extraction import SpanArrays

Parse = Callable[[Sequence[str], Sequence[int]], list[SpanArrays]]
"""Finds the spans of texts, which messages call by the numbers; see ``extraction.extract``."""


def parse_pieces(texts: Sequence[str], cuts: Sequence[Sequence[int]], parse: Parse) -> list[SpanArrays]:
    """Spans of texts that are cut before they are parsed.

    Equal pieces are parsed once. No span reaches over a cut.

    Args:
        texts: Any strings.
        cuts: Where each is cut, ascending character offsets; none: it is parsed as a whole.
        parse: Parses pieces; each is called by the number of the first text that has it.

    Returns:
        For each text, granularity -> (K, 2) int32 half-open character ranges into the whole text.
    """
    numbers: dict[str, int] = {}
    for number, (text, places) in enumerate(zip(texts, cuts, strict=True)):
        for start, end in pieces(text, places):
            numbers.setdefault(text[start:end], number)
    found = dict(zip(numbers, parse(list(numbers), list(numbers.values())), strict=True))
    return [
        _joined([(start, found[text[start:end]]) for start, end in pieces(text, places)])
        for text, places in zip(texts, cuts, strict=True)
    ]


def pieces(text: str, cuts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The character ranges that a text is cut into; a text without cuts is one."""
    return pairwise((0, *cuts, len(text)))


def _joined(parts: Sequence[tuple[int, SpanArrays]]) -> SpanArrays:
    if len(parts) == 1:
        return parts[0][1]
    granularities = parts[0][1]
    return {name: np.concatenate([spans[name] + start for start, spans in parts]) for name in granularities}
