"""ROUGE-L."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from mta_framework import Generations
from mta_plugins.metrics.rouge_l import RougeL


def score(predictions, texts, **options):
    return RougeL(RougeL.Params(**options)).score(Generations(predictions, texts)).scores


def test_score_is_the_f1_of_the_longest_common_subsequence_times_100():
    # Common: "the cat on mat", 4 of 5 predicted words and of 6 in the reference.
    precision, recall = 4 / 5, 4 / 6
    expected = 100 * 2 * precision * recall / (precision + recall)
    assert score(["the cat lay on mat"], [["the cat sat on the mat"]]) == pytest.approx((expected,))


def test_order_of_words_counts():
    # "a b c d" against "d c b a": one word in common order, 1 of 4 on either side.
    assert score(["alpha beta gamma delta"], [["delta gamma beta alpha"]]) == pytest.approx((25.0,))


def test_case_and_punctuation_do_not_count():
    assert score(["Hello, World!"], [["hello world"]]) == pytest.approx((100.0,))


def test_best_of_several_references_counts_or_the_first():
    references = [["something else", "a good answer"]]
    assert score(["a good answer"], references) == pytest.approx((100.0,))
    assert score(["a good answer"], references, references="first") == (0.0,)


def test_stemming_can_be_switched_off():
    assert score(["walking dogs"], [["walked dog"]]) == pytest.approx((100.0,))
    assert score(["walking dogs"], [["walked dog"]], use_stemmer=False) == (0.0,)


@pytest.mark.parametrize("reference", ["a reference", ""])
def test_empty_prediction_scores_0(reference):
    assert score(["", "  \n"], [[reference], [reference]]) == (0.0, 0.0)


def test_nothing_to_score_gives_no_scores():
    assert score([], []) == ()


def test_unequal_numbers_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        score(["a", "b"], [["a"]])


@pytest.mark.parametrize("options", [{"references": "all"}, {"stemmer": True}])
def test_unknown_options_are_refused(options):
    with pytest.raises(ValidationError):
        RougeL.Params(**options)


def test_scores_equal_the_packages_own_on_real_rows(paper_data):
    from rouge_score import rouge_scorer

    lines = (paper_data / "dolly" / "test.jsonl").read_text(encoding="utf-8").splitlines()[:40]
    rows = [json.loads(line) for line in lines]
    references = [row["output"] if isinstance(row["output"], list) else [row["output"]] for row in rows]
    predictions = [row["instruction"] + " " + row["input"] for row in rows]
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    expected = [
        100 * scorer.score_multi(texts, prediction)["rougeL"].fmeasure
        for texts, prediction in zip(references, predictions, strict=True)
    ]
    assert score(predictions, references) == pytest.approx(expected)
    assert sum(expected) > 0
