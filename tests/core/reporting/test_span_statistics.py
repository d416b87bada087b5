"""What is counted, by hand."""

from __future__ import annotations

from mta_framework.reporting.annotated_text import AnnotatedText
from mta_framework.reporting.span_statistics import statistics_notes, statistics_table


def test_shares_are_of_characters_and_tokens_in_some_span() -> None:
    tokens = [(0, 4), (4, 6), (6, 10)]
    texts = [
        AnnotatedText("0123456789", {"w": [(0, 4), (2, 6), (3, 5)], "p": []}, tokens, {"w": 2, "p": 0}),
        AnnotatedText("", {"w": [], "p": []}, [], {"w": 0, "p": 0}),
    ]
    assert statistics_table(texts).rows == [
        ["w", "3", "1.5", "60.0%", "66.7%", "1 (50.0%)"],
        ["p", "0", "0.0", "0.0%", "0.0%", "2 (100.0%)"],
    ]
    assert list(statistics_notes([3, 0], texts, 0.5)) == [
        "Counted over 2 texts.",
        "Could not be parsed and have no spans: 3 segments in 1 text.",
        "Parsing: 4.0 texts/s, 20 characters/s in one process with its parser loaded (2 texts).",
    ]


def test_nothing_is_nothing() -> None:
    assert statistics_table([AnnotatedText("", {"w": []})]).rows == [["w", "0", "0.0", "0.0%", "1 (100.0%)"]]
    assert list(statistics_notes([0], [], 0.0)) == ["Counted over 1 text.", "Everything could be parsed."]
