"""Extractors that work on segments."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mta_framework import PluginParams, RunError, Span, SpanExtractor, SpanSet
from mta_framework.spans.extraction import extract
from mta_framework.spans.segments import Excerpt, Segment, failures_of, gaps, merged, spans_of, spans_within


class Part(SpanExtractor):
    """Returns the spans it was given."""

    NAME = "part"
    VERSION = "1"

    def __init__(self, spans: Sequence[Span], granularity: str = "words", count: int = 1):
        super().__init__(PluginParams())
        self.spans, self.granularity, self.count = list(spans), granularity, count

    @property
    def granularities(self) -> tuple[str, ...]:
        return ("words",)

    def extract(self, texts: Sequence[str]) -> list[SpanSet]:
        return [{self.granularity: self.spans} for text in texts] * self.count

    def failures(self, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]


class Whole(Part):
    """Hands its texts to a part as they are."""

    NAME = "whole"

    def __init__(self, part: Part):
        super().__init__([])
        self.part = part

    def extract(self, texts: Sequence[str]) -> list[SpanSet]:
        return spans_within(self.part, texts, [[(0, len(text))] if text else [] for text in texts])


def test_offsets_are_those_of_the_whole_text() -> None:
    texts, ranges = ["ab cd", "", "xyz"], [[(0, 2), (3, 5)], [], [(1, 3)]]
    assert spans_within(Part([(0, 1)]), texts, ranges) == [
        {"words": [(0, 1), (3, 4)]},
        {"words": []},
        {"words": [(1, 2)]},
    ]


def test_what_is_found_around_the_span_of_a_piece_is_dropped() -> None:
    pieces = [[Excerpt("<<ab>>", 3, (5, 7))]]
    assert spans_of(Part([(0, 2), (1, 3), (2, 4), (3, 5)]), pieces) == [{"words": [(5, 7)]}]
    assert failures_of(Part([]), [*pieces, [], [Excerpt("x", 0, (0, 1)), Excerpt("yz", 2, (2, 4))]]) == [6, 0, 3]


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        (Part([(0, 9)]), r"text 1 \('abc'\): failed .*its part 'part' found \(0, 9\) in a segment of 3 characters"),
        (Part([(2, 2)]), r"'part' found \(2, 2\)"),
        (Part([], granularity="word"), r"'part' must return \('words',\) \(got \['word'\]\)"),
        (Part([], count=2), "'part' returned 2 span sets for 1 texts"),
    ],
)
def test_a_part_that_breaks_its_contract_is_named(part: Part, problem: str) -> None:
    with pytest.raises(RunError, match=f"(?s)'whole'.*{problem}"):
        extract(Whole(part), ["", "abc"])


def test_gaps_have_no_white_space_at_their_ends() -> None:
    segments = [Segment("inline code", 3, 6, (4, 5)), Segment("latex", 8, 11, (9, 10))]
    assert gaps(" a `b`  $c$ d\u2003", segments) == [(1, 2), (12, 13)]
    assert gaps(" \n", []) == []


def test_merged_spans_are_sorted_and_a_granularity_that_a_part_lacks_is_empty_there() -> None:
    parts = [{"words": [(4, 5)], "phrases": [(0, 5), (2, 5)]}, {"words": [(0, 1)]}]
    assert merged(("words", "phrases", "lines"), parts) == {
        "words": [(0, 1), (4, 5)],
        "phrases": [(0, 5), (2, 5)],
        "lines": [],
    }
