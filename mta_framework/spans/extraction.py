"""Calls a span extractor and validates its spans, since a wrong offset would silently train on wrong spans."""

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


def extract(
    extractor: SpanExtractor, texts: Sequence[str], text_indices: Sequence[int] | None = None
) -> list[SpanArrays]:
    """Extract and validate the spans of texts.

    Args:
        extractor: The span extractor.
        texts: Any strings.
        text_indices: Index of each text in the data set, which messages name; None: its position in ``texts``.

    Returns:
        The spans of each text, with every granularity of the extractor.

    Raises:
        RunError: The extractor raises an exception, or its spans break its contract.
    """
    texts = tuple(texts)  # an extractor that changed its argument would be blamed for what it did not return
    indexed = [(index, text) for index, text in zip(text_indices or range(len(texts)), texts, strict=True)]
    try:
        span_sets = extractor.extract(texts)
    except MTAError:
        raise
    except Exception as error:  # plugin code: it may raise anything
        raise RunError(_failure(extractor, indexed, error)) from error
    plugin = f"span extractor {extractor.NAME!r}"
    if not isinstance(span_sets, Sequence) or len(span_sets) != len(texts):
        got = len(span_sets) if isinstance(span_sets, Sequence) else type(span_sets).__name__
        raise RunError(f"{plugin} must return one span set per text, {len(texts)} (got {got})")
    overlaps = {granularity: extractor.overlap(granularity) for granularity in extractor.granularities}
    results = []
    for (index, text), span_set in zip(indexed, span_sets, strict=True):
        try:
            results.append(_arrays(span_set, overlaps, len(text)))
        except (ValueError, TypeError, OverflowError) as error:
            raise RunError(f"{plugin}, {_label(index, text)}: {error}") from error
    return results


def _failure(extractor: SpanExtractor, indexed: Sequence[tuple[int, str]], error: Exception) -> str:
    """The message of a failed call; each text is tried alone to find the one that fails."""
    plugin = f"span extractor {extractor.NAME!r}"
    if len(indexed) > 1:
        for index, text in indexed:
            try:
                extractor.extract((text,))
            except Exception as again:  # plugin code, as above
                return f"{plugin}, {_label(index, text)}: failed ({error_text(again)})"
    label = _label(*indexed[0]) if len(indexed) == 1 else f"{len(indexed)} texts, none of which fails alone"
    return f"{plugin}, {label}: failed ({error_text(error)})"


def _label(index: int, text: str) -> str:
    # The beginning alone would not identify a text: it is the template of the prompt.
    return f"text {index} ({text!r})" if len(text) <= 80 else f"text {index} ({text[:40]!r} ... {text[-40:]!r})"


def _arrays(span_set: Any, overlaps: Mapping[str, Overlap], length: int) -> SpanArrays:
    if not isinstance(span_set, Mapping) or set(span_set) != set(overlaps):
        got = list(span_set) if isinstance(span_set, Mapping) else type(span_set).__name__
        raise ValueError(f"a span set must have the granularities {list(overlaps)} (got {got})")
    arrays = {granularity: _array(span_set[granularity], granularity, length) for granularity in overlaps}
    for granularity, overlap in overlaps.items():
        _check_overlap(arrays[granularity], granularity, overlap)
    return arrays


def _check_overlap(span_K2: NDArray[np.int32], granularity: str, overlap: Overlap) -> None:
    """Check that spans overlap no more than the extractor declares."""
    if overlap != "repeated":
        _check_distinct(span_K2, granularity)
    if overlap in ("any", "repeated"):
        return
    # Sorted spans are disjoint if neighbours are: the fast path for almost all texts.
    if (span_K2[1:, 0] >= span_K2[:-1, 1]).all():
        return
    enclosing: list[list[int]] = []
    for start, end in sorted(span_K2.tolist(), key=lambda span: (span[0], -span[1])):
        while enclosing and enclosing[-1][1] <= start:
            enclosing.pop()
        if enclosing and (overlap == "none" or end > enclosing[-1][1]):
            expected = "lie apart" if overlap == "none" else "lie apart or one inside the other"
            raise ValueError(
                f"{granularity} must {expected}, as promised (got {tuple(enclosing[-1])} and {(start, end)})"
            )
        enclosing.append([start, end])


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
    return span_K2.astype(np.int32)


def _check_distinct(span_K2: NDArray[np.int32], granularity: str) -> None:
    start_K, end_K = span_K2.astype(np.int64).T
    if len(np.unique(start_K << 32 | end_K)) < len(span_K2):
        raise ValueError(f"{granularity} must not repeat a span")
