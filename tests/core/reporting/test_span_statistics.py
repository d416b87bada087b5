"""What is counted, by hand."""

from __future__ import annotations

import pytest

from mta_framework.reporting.annotated_text import AnnotatedText
from mta_framework.reporting.span_statistics import Speed, span_statistics, statistics_notes, statistics_table


def test_shares_are_of_characters_and_tokens_in_some_span() -> None:
    tokens = [(0, 4), (4, 6), (6, 10)]
    texts = [
        AnnotatedText("0123456789", {"w": [(0, 4), (2, 6), (3, 5)], "p": []}, tokens, {"w": 2, "p": 0}),
        AnnotatedText("", {"w": [], "p": []}, [], {"w": 0, "p": 0}),
    ]
    statistics = span_statistics(texts, [3, 0], Speed(2, 10, 0.5))
    words, phrases = statistics.granularities
    assert (words.spans, words.characters, words.texts_without) == (3, 0.6, 1)
    assert words.tokens == pytest.approx(2 / 3)
    assert (phrases.spans, phrases.characters, phrases.tokens, phrases.texts_without) == (0, 0.0, 0.0, 2)
    assert statistics_table(statistics).rows[0] == ["w", "3", "1.5", "60.0%", "66.7%", "1 (50.0%)"]
    assert list(statistics_notes(statistics)) == [
        "Counted over 2 texts.",
        "Could not be parsed and have no spans: 3 segments in 1 text.",
        "Parsing: 4.0 texts/s, 20 characters/s in one process with its parser loaded (2 texts).",
    ]


def test_nothing_is_nothing() -> None:
    statistics = span_statistics([AnnotatedText("", {"w": []})], [0], Speed(1, 0, 0.0))
    assert statistics_table(statistics).rows == [["w", "0", "0.0", "0.0%", "1 (100.0%)"]]
    assert len(list(statistics_notes(statistics))) == 2
