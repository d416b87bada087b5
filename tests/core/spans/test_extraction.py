"""Span extractors are checked: whoever breaks the contract is named."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mta_framework import Overlap, RunError, SpanExtractor
from mta_framework.spans.extraction import extract


class Fixed(SpanExtractor):
    """Returns the span sets it was given."""

    NAME = "fixed"
    VERSION = "1"

    def __init__(self, answer: Any, overlap: Overlap = "any"):
        super().__init__(self.Params())
        self.answer = answer
        self.promise: Overlap = overlap

    @property
    def granularities(self) -> tuple[str, ...]:
        return ("words",)

    def overlap(self, granularity: str) -> Overlap:
        return self.promise

    def extract(self, texts: Sequence[str]) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_spans_become_arrays_and_no_spans_are_normal() -> None:
    first, second = extract(Fixed([{"words": [(0, 2), (1, 4)]}, {"words": ()}]), ["abcd", ""])
    assert first["words"].tolist() == [[0, 2], [1, 4]]
    assert second["words"].shape == (0, 2)
    assert first["words"].dtype == second["words"].dtype == np.int32


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(0, 5)], r"0 <= start < end <= 4 \(got \(0, 5\)\)"),
        ([(-1, 2)], r"got \(-1, 2\)"),
        ([(2, 2)], r"got \(2, 2\)"),
        ([(2, 3), (0, 1)], "sorted"),
        ([(0, 3), (0, 1), (0, 3)], "repeat"),
        ([(0.0, 1.0)], "pairs of integers"),
        ([0, 1], "pairs of integers"),
        ([(0, 1), (1,)], "fixed"),
        (None, "fixed"),
    ],
)
def test_wrong_spans_name_the_plugin_the_text_and_the_fault(spans: object, expected: str) -> None:
    with pytest.raises(RunError, match=expected) as caught:
        extract(Fixed([{"words": []}, {"words": spans}]), ["", "abcd"], text_indices=[3, 7])
    assert "span extractor 'fixed', text 7 ('abcd')" in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ([{}], r"must have the granularities \['words'\] \(got \[\]\)"),
        ([{"words": [], "more": []}], "got .*more"),
        ([None], "got NoneType"),
        ([], r"span extractor 'fixed' must return one span set per text, 1 \(got 0\)"),
        (None, r"span extractor 'fixed' must return one span set per text, 1 \(got NoneType\)"),
        (
            KeyError("x"),
            r"^span extractor 'fixed', text 0 \('abcd'\): failed \(KeyError: 'x', in test_extraction.py:\d+\)$",
        ),
        (RunError("no parser"), "^no parser$"),
    ],
)
def test_an_answer_that_is_no_span_set_is_a_run_error(answer: object, expected: str) -> None:
    with pytest.raises(RunError, match=expected):
        extract(Fixed(answer), ["abcd"])


class Choosy(Fixed):
    """Fails on some texts, or on all at once."""

    def __init__(self, unwanted: str, most: int = 9):
        super().__init__([])
        self.unwanted, self.most = unwanted, most

    def extract(self, texts: Sequence[str]) -> Any:
        if len(texts) > self.most or any(self.unwanted in text for text in texts):
            raise ValueError("no")
        return [{"words": []} for _ in texts]


def test_of_many_texts_the_one_that_fails_is_named_by_its_number() -> None:
    message = r"^span extractor 'fixed', text 12 \('ac'\): failed \(ValueError: no, in test_extraction.py:\d+\)$"
    with pytest.raises(RunError, match=message):
        extract(Choosy("c"), ["a", "b", "ac", "c"], text_indices=[5, 6, 12, 13])


def test_texts_that_fail_together_alone_are_counted() -> None:
    with pytest.raises(RunError, match="'fixed', 3 texts, none of which fails alone: failed"):
        extract(Choosy("x", most=2), ["a", "b", "c"])


NESTED = [(0, 9), (0, 3), (1, 3), (4, 6), (9, 12)]
CROSSED = [(0, 5), (2, 3), (4, 7)]
APART = [(0, 3), (3, 5), (7, 8)]


@pytest.mark.parametrize(
    ("overlap", "spans"),
    [
        ("any", CROSSED),
        ("any", NESTED),
        ("nested", NESTED),
        ("nested", sorted(NESTED)),
        ("nested", APART),
        ("none", APART),
        ("none", []),
    ],
)
def test_spans_may_lie_as_promised(overlap: Overlap, spans: list[tuple[int, int]]) -> None:
    (span_set,) = extract(Fixed([{"words": spans}], overlap), ["x" * 12])
    assert list(map(tuple, span_set["words"].tolist())) == spans


@pytest.mark.parametrize(
    ("overlap", "spans", "expected"),
    [
        ("nested", CROSSED, r"words must lie apart or one inside the other, as promised \(got \(0, 5\) and \(4, 7\)\)"),
        ("none", CROSSED, r"words must lie apart, as promised \(got \(0, 5\) and \(2, 3\)\)"),
        ("none", NESTED, r"got \(0, 9\) and \(0, 3\)"),
        ("none", [(0, 9), (1, 2), (3, 4)], r"got \(0, 9\) and \(1, 2\)"),
        ("nested", [(0, 9), (1, 4), (3, 5)], r"got \(1, 4\) and \(3, 5\)"),
    ],
)
def test_spans_that_lie_otherwise_than_promised_name_the_plugin_and_the_text(
    overlap: Overlap, spans: list[tuple[int, int]], expected: str
) -> None:
    with pytest.raises(RunError, match=rf"span extractor 'fixed', text 4 \('x+'\): .*{expected}"):
        extract(Fixed([{"words": spans}], overlap), ["x" * 12], text_indices=[4])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sets(st.tuples(st.integers(0, 7), st.integers(1, 8)).filter(lambda span: span[0] < span[1]), max_size=5))
def test_promises_are_judged_as_by_comparing_all_pairs(spans: set[tuple[int, int]]) -> None:
    pairs = list(itertools.combinations(spans, 2))
    apart = all(a[1] <= b[0] or b[1] <= a[0] for a, b in pairs)
    shared = [len(set(range(*a)) & set(range(*b))) for a, b in pairs]
    nested = all(n in (0, a[1] - a[0], b[1] - b[0]) for n, (a, b) in zip(shared, pairs, strict=True))
    for overlap, valid in (("none", apart), ("nested", nested)):
        with nullcontext() if valid else pytest.raises(RunError, match="as promised"):
            extract(Fixed([{"words": sorted(spans)}], overlap), ["x" * 8])


def test_a_long_text_is_shown_with_its_end_as_many_begin_alike() -> None:
    text = "Below is an instruction that describes a task.\n\nWrite a response to it: say hello to everybody."
    with pytest.raises(RunError) as caught:
        extract(Fixed([{"words": [(0, 100)]}]), [text], [17])
    shown = "'Below is an instruction that describes a' ... ' response to it: say hello to everybody.'"
    assert f"text 17 ({shown})" in str(caught.value)
