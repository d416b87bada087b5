"""Span extractors are checked: whoever breaks the contract is named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from mta_framework import RunError, SpanExtractor
from mta_framework.data.extraction import extract


class Fixed(SpanExtractor):
    """Says what it is told to."""

    NAME = "fixed"
    VERSION = "1"

    def __init__(self, answer: Any):
        super().__init__(self.Params())
        self.answer = answer

    @property
    def granularities(self) -> tuple[str, ...]:
        return ("words",)

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
        extract(Fixed([{"words": []}, {"words": spans}]), ["", "abcd"], numbers=[3, 7])
    assert "span extractor 'fixed', text 7 ('abcd')" in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ([{}], r"must have the granularities \['words'\] \(got \[\]\)"),
        ([{"words": [], "more": []}], "got .*more"),
        ([None], "got NoneType"),
        ([], "0 span sets for 1 texts"),
        (KeyError("x"), r"span extractor 'fixed' failed \(KeyError: 'x'\)"),
        (RunError("no parser"), "^no parser$"),
    ],
)
def test_an_answer_that_is_no_span_set_is_a_run_error(answer: object, expected: str) -> None:
    with pytest.raises(RunError, match=expected):
        extract(Fixed(answer), ["abcd"])
