"""Calls a span extractor and checks what it says: a wrong offset would silently train on wrong spans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mta_framework.errors import MTAError, RunError, error_text
from mta_framework.interfaces import SpanExtractor
from mta_framework.types import Overlap

SpanArrays = Mapping[str, NDArray[np.int32]]
"""The spans of one text: granularity -> (K, 2) half-open character ranges."""


def extract(extractor: SpanExtractor, texts: Sequence[str], numbers: Sequence[int] | None = None) -> list[SpanArrays]:
    """Find the spans of texts.

    Args:
        extractor: The plugin.
        texts: Any strings.
        numbers: What the texts are called in messages; None: their positions.

    Returns:
        The spans of each text, with every granularity of the extractor.

    Raises:
        RunError: The extractor fails, or what it returns breaks its contract.
    """
    named = [(number, text) for number, text in zip(numbers or range(len(texts)), texts, strict=True)]
    try:
        span_sets = extractor.extract(texts)
    except MTAError:
        raise
    except Exception as error:  # plugin code: it may raise anything
        raise RunError(_failure(extractor, named, error)) from error
    plugin = f"span extractor {extractor.NAME!r}"
    if not isinstance(span_sets, Sequence) or len(span_sets) != len(texts):
        got = len(span_sets) if isinstance(span_sets, Sequence) else type(span_sets).__name__
        raise RunError(f"{plugin} must return one span set per text, {len(texts)} (got {got})")
    overlaps = {granularity: extractor.overlap(granularity) for granularity in extractor.granularities}
    results = []
    for (number, text), span_set in zip(named, span_sets, strict=True):
        try:
            results.append(_arrays(span_set, overlaps, len(text)))
        except (ValueError, TypeError, OverflowError) as error:
            raise RunError(f"{plugin}, {_shown(number, text)}: {error}") from error
    return results


def _failure(extractor: SpanExtractor, named: Sequence[tuple[int, str]], error: Exception) -> str:
    """Which text it was: that is known only of a text that fails alone."""
    plugin = f"span extractor {extractor.NAME!r}"
    if len(named) > 1:
        for number, text in named:
            try:
                extractor.extract([text])
            except Exception as again:  # as above
                return f"{plugin}, {_shown(number, text)}: failed ({error_text(again)})"
    place = _shown(*named[0]) if len(named) == 1 else f"{len(named)} texts, none of which fails alone"
    return f"{plugin}, {place}: failed ({error_text(error)})"


def _shown(number: int, text: str) -> str:
    # The beginning alone would not do: it is the template of the prompt.
    return f"text {number} ({text!r})" if len(text) <= 80 else f"text {number} ({text[:40]!r} ... {text[-40:]!r})"


def _arrays(span_set: Any, overlaps: Mapping[str, Overlap], length: int) -> SpanArrays:
    if not isinstance(span_set, Mapping) or set(span_set) != set(overlaps):
        got = list(span_set) if isinstance(span_set, Mapping) else type(span_set).__name__
        raise ValueError(f"a span set must have the granularities {list(overlaps)} (got {got})")
    arrays = {granularity: _array(span_set[granularity], granularity, length) for granularity in overlaps}
    for granularity, overlap in overlaps.items():
        _require_promised(arrays[granularity], granularity, overlap)
    return arrays


def _require_promised(span_K2: NDArray[np.int32], granularity: str, overlap: Overlap) -> None:
    """Hold an extractor to what it says of its spans."""
    if overlap == "any":
        return
    # Sorted by start, so where all follow each other apart, neighbours do; the quick answer for almost all texts.
    if (span_K2[1:, 0] >= span_K2[:-1, 1]).all():
        return
    around: list[list[int]] = []
    for start, end in sorted(span_K2.tolist(), key=lambda span: (span[0], -span[1])):
        while around and around[-1][1] <= start:
            around.pop()
        if around and (overlap == "none" or end > around[-1][1]):
            expected = "lie apart" if overlap == "none" else "lie apart or one inside the other"
            raise ValueError(f"{granularity} must {expected}, as promised (got {tuple(around[-1])} and {(start, end)})")
        around.append([start, end])


def _array(spans: Any, granularity: str, length: int) -> NDArray[np.int32]:
    if len(spans) == 0:
        return np.empty((0, 2), dtype=np.int32)
    span_K2 = np.asarray(spans)
    if span_K2.dtype.kind not in "iu" or span_K2.ndim != 2 or span_K2.shape[1] != 2:
        raise ValueError(f"{granularity} must be pairs of integers (got {spans[:3]!r})")
    start_K, end_K = span_K2.astype(np.int64).T
    problem = np.flatnonzero((start_K < 0) | (start_K >= end_K) | (end_K > length))
    if len(problem):
        got = tuple(span_K2[problem[0]].tolist())
        raise ValueError(f"{granularity} must satisfy 0 <= start < end <= {length} (got {got})")
    if (start_K[1:] < start_K[:-1]).any():
        raise ValueError(f"{granularity} must be sorted by start")
    if len(np.unique(start_K << 32 | end_K)) < len(span_K2):
        raise ValueError(f"{granularity} must not repeat a span")
    return span_K2.astype(np.int32)
