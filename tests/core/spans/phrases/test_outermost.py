"""What is kept of phrases, and the words in them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mta_framework.spans.phrases import outermost_phrases, words_within

SPANS = st.tuples(st.integers(0, 12), st.integers(1, 6)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def test_a_phrase_that_ends_no_later_than_the_last_kept_one_is_dropped() -> None:
    assert outermost_phrases([(4, 5), (0, 3), (1, 3), (0, 2), (2, 5), (0, 3)]) == [(0, 3), (2, 5)]


@given(st.lists(SPANS))
def test_every_phrase_lies_in_a_kept_one_and_kept_ones_not_in_each_other(phrases) -> None:
    kept = outermost_phrases(phrases)
    assert set(kept) <= set(phrases)
    assert all(any(start <= first and end <= last for start, last in kept) for first, end in phrases)
    assert all(a == b or not (a[0] <= b[0] and b[1] <= a[1]) for a in kept for b in kept)


def test_a_word_runs_to_the_next_one_in_its_phrase_and_the_last_to_its_end() -> None:
    # "the big  dog barks": tokens without the spaces between them
    tokens = [(0, 3), (4, 7), (9, 12), (13, 18)]
    assert words_within(tokens, [(0, 3)]) == [(0, 4), (4, 9), (9, 12)]
    assert words_within(tokens, [(0, 3), (2, 4)]) == [(0, 4), (4, 9), (9, 13), (9, 12), (13, 18)]
    assert words_within(tokens, []) == []


def test_a_word_of_two_phrases_is_listed_once_or_once_for_each() -> None:
    tokens = [(0, 3), (4, 7), (8, 11), (12, 15)]
    overlapping = [(0, 3), (1, 4)]
    assert words_within(tokens, overlapping) == [(0, 4), (4, 8), (8, 12), (8, 11), (12, 15)]
    assert words_within(tokens, overlapping, repeat=True) == [(0, 4), (4, 8), (4, 8), (8, 12), (8, 11), (12, 15)]
