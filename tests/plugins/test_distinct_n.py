"""Distinct n-grams."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mta_framework import Generations
from mta_plugins.metrics.distinct_n import DistinctN


def score(text, n=2):
    (score,) = DistinctN(DistinctN.Params(n=n)).score(Generations([text], [["of no importance"]])).scores
    return score


@pytest.mark.parametrize(
    ("text", "n", "expected"),
    [
        ("a b a b", 1, 2 / 4),
        ("a b a b", 2, 2 / 3),
        ("a b a b", 3, 2 / 2),
        ("no no no no no", 2, 1 / 4),
        ("The cat. the CAT!", 1, 2 / 4),
        ("日本 日本 語", 1, 3 / 5),
        ("巴黎。", 2, 1 / 1),
        ("ดีดี", 1, 2 / 4),
        ("คือคือ", 1, 2 / 4),
        ("one two three", 3, 1),
        ("हिन्दी भाषा हिन्दी", 1, 2 / 3),
        ("की कि", 1, 2 / 2),
        ("می\u200cخواهم می\u200cدانم", 1, 2 / 2),
    ],
)
def test_score_is_the_share_of_distinct_n_grams_times_100(text, n, expected):
    assert score(text, n) == pytest.approx(100 * expected)


@pytest.mark.parametrize(("text", "n"), [("", 1), ("... !", 1), ("yes", 2), ("one two three", 4)])
def test_a_response_of_fewer_than_n_words_scores_0(text, n):
    assert score(text, n) == 0


@given(words=st.lists(st.sampled_from("abc"), max_size=12), n=st.integers(1, 4))
def test_score_equals_a_plain_count(words, n):
    seen = []
    for start in range(len(words) - n + 1):
        seen.append(" ".join(words[start : start + n]))
    expected = 100 * len(set(seen)) / len(seen) if seen else 0
    assert score(" ".join(words), n) == pytest.approx(expected)


@pytest.mark.parametrize("options", [{"n": 0}, {"n": 11}, {"n": 1.5}, {"words": 2}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValidationError):
        DistinctN.Params(**options)
