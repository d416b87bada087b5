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


@pytest.mark.parametrize("reference", ["a reference", "巴黎", "😌"])
def test_empty_prediction_scores_0(reference):
    assert score(["", "  \n"], [[reference], [reference]]) == (0.0, 0.0)


def test_nothing_to_score_gives_no_scores():
    assert score([], []) == ()


def test_unequal_numbers_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        score(["a", "b"], [["a"]])


@pytest.mark.parametrize(
    "text",
    ["法国的首都是巴黎，草是绿色的。", "चाय मेज़ पर है।", "คำตอบคือสี่", "巴黎。", "Ответ четыре", "😌😊", "+"],
)
def test_a_response_that_is_its_reference_scores_100_in_any_script(text):
    assert score([text], [[text]]) == (100.0,)


def test_scripts_without_spaces_are_compared_by_characters_with_their_marks():
    # 巴 黎 of 2 characters against 在 巴 黎 of 3; คื อ against คื, of 1.
    assert score(["在巴黎", "คือ"], [["巴黎。"], ["คื"]]) == pytest.approx((100 * 2 * 2 / 5, 100 * 2 * 1 / 3))


def test_references_mostly_in_ascii_letters_have_the_words_of_published_numbers():
    # rouge-score's words of "a café" are "a" and "caf".
    assert score(["the caf"], [["a café"]]) == pytest.approx((50.0,))
    assert score(["the caf"], [["a café"]], words="any_script") == (0.0,)
    assert score(["巴黎"], [["Paris, 巴黎"]]) == (0.0,)


def test_characters_may_be_compared():
    # a b in order: 2 of 2 and of 3 characters.
    assert score(["a b"], [["acb"]], words="characters") == pytest.approx((100 * 2 * 2 / 5,))


def test_prompts_whose_references_have_no_words_have_no_weight():
    metric = RougeL(RougeL.Params(words="rouge_score"))
    scores = metric.score(Generations(["巴黎", "yes", ""], [["巴黎"], ["yes"], ["no", "巴黎"]]))
    assert (scores.scores, scores.weights) == ((0.0, 100.0, 0.0), (0.0, 1.0, 1.0))


def test_references_without_any_words_are_an_error():
    with pytest.raises(ValueError, match=r"no reference has words \(got words=rouge_score\)"):
        score(["巴黎"], [["巴黎"]], words="rouge_score")


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
