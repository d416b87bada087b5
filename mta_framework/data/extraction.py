"""Calls a span extractor and checks what it says: a wrong offset would silently train on wrong spans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mta_framework.errors import MTAError, RunError
from mta_framework.interfaces import SpanExtractor

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
    try:
        span_sets = extractor.extract(texts)
    except MTAError:
        raise
    except Exception as error:  # plugin code: it may raise anything
        raise RunError(f"span extractor {extractor.NAME!r} failed ({type(error).__name__}: {error})") from error
    if len(span_sets) != len(texts):
        raise RunError(f"span extractor {extractor.NAME!r} returned {len(span_sets)} span sets for {len(texts)} texts")
    results = []
    for text, number, span_set in zip(texts, numbers or range(len(texts)), span_sets, strict=True):
        try:
            results.append(_arrays(span_set, extractor.granularities, len(text)))
        except (ValueError, TypeError, OverflowError) as error:
            start = f"{text[:40]!r}{'...' if len(text) > 40 else ''}"
            raise RunError(f"span extractor {extractor.NAME!r}, text {number} ({start}): {error}") from error
    return results


def _arrays(span_set: Any, granularities: Sequence[str], length: int) -> SpanArrays:
    if not isinstance(span_set, Mapping) or set(span_set) != set(granularities):
        got = list(span_set) if isinstance(span_set, Mapping) else type(span_set).__name__
        raise ValueError(f"a span set must have the granularities {list(granularities)} (got {got})")
    return {granularity: _array(span_set[granularity], granularity, length) for granularity in granularities}


def _array(spans: Any, granularity: str, length: int) -> NDArray[np.int32]:
    if len(spans) == 0:
        return np.empty((0, 2), dtype=np.int32)
    span_K2 = np.asarray(spans)
    if span_K2.dtype.kind not in "iu" or span_K2.ndim != 2 or span_K2.shape[1] != 2:
        raise ValueError(f"{granularity} must be pairs of integers (got {spans[:3]!r})")
    start_K, end_K = span_K2.astype(np.int64).T
    wrong = np.flatnonzero((start_K < 0) | (start_K >= end_K) | (end_K > length))
    if len(wrong):
        got = tuple(span_K2[wrong[0]].tolist())
        raise ValueError(f"{granularity} must satisfy 0 <= start < end <= {length} (got {got})")
    if (start_K[1:] < start_K[:-1]).any():
        raise ValueError(f"{granularity} must be sorted by start")
    if len(np.unique(start_K << 32 | end_K)) < len(span_K2):
        raise ValueError(f"{granularity} must not repeat a span")
    return span_K2.astype(np.int32)
