"""Exact match."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mta_framework import Generations
from mta_plugins.metrics.exact_match import ExactMatch


def score(prediction, *references, **options):
    (score,) = ExactMatch(ExactMatch.Params(**options)).score(Generations([prediction], [references])).scores
    return score


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("Paris", "paris"),
        ("The  Eiffel\nTower.", "eiffel tower"),
        ("an answer", "answer!"),
        ("U.S.A.", "usa"),
        ("東京", "東京"),
        ("巴黎。", "巴黎"),
        ("“चाय मेज़ पर है।”", "चाय मेज़ पर है"),
    ],
)
def test_case_punctuation_articles_and_white_space_do_not_count(prediction, reference):
    assert score(prediction, reference) == score(reference, prediction) == 100


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [("Paris, France", "Paris"), ("", "x"), ("?!", ""), ("+", "-"), ("theme", "me"), ("café", "cafe"), ("a b", "ab")],
)
def test_anything_else_does(prediction, reference):
    assert score(prediction, reference) == score(reference, prediction) == 0


def test_any_reference_may_be_met_or_the_first_alone():
    assert score("b", "x", "b") == 100
    assert score("b", "x", "b", references="first") == 0
    assert score("x", "x", "b", references="first") == 100


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("3 and 4 make 7.", "He has 3 + 4 = <<3+4=7>>7.\n#### 7"),
        ("so it is $1,234.50", "#### 1234.5"),
        ("-5", "minus: −5.0"),
        ("10-3=7", "7"),
        ("it is .5", "0.5"),
        ("x1 = 1,000,000", "1000000.00"),
        ("007", "7"),
    ],
)
def test_last_numbers_are_compared_as_numbers(prediction, reference):
    assert score(prediction, reference, compare="last_number") == 100


@pytest.mark.parametrize(
    ("prediction", "reference"), [("7, or 8", "7"), ("none", "none"), ("", "0"), ("5-3", "-3"), ("12,34", "1234")]
)
def test_other_last_numbers_and_none_do_not_match(prediction, reference):
    assert score(prediction, reference, compare="last_number") == 0


@pytest.mark.parametrize("options", [{"compare": "number"}, {"references": "best"}, {"case": True}])
def test_unknown_options_are_refused(options):
    with pytest.raises(ValidationError):
        ExactMatch.Params(**options)


def test_unequal_numbers_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        ExactMatch(ExactMatch.Params()).score(Generations(["a", "b"], [["a"]]))


@pytest.mark.parametrize(("prediction", "score"), [("A.", 100.0), ("", 0.0), ("the", 0.0), ("B", 0.0)])
def test_an_answer_that_is_an_article_must_be_given(prediction, score):
    generations = Generations([prediction], [["A"]])
    assert ExactMatch(ExactMatch.Params()).score(generations).scores == (score,)
