"""ROUGE-L of 500 responses, against the package itself, against MiniLLM's rule and against a computation of our own.

``golden/responses_smollm2.jsonl`` has responses of SmolLM2-135M-Instruct at temperature 0.7, up to 32 tokens: to 250
instructions of Dolly, and to 250 of Super-Natural-Instructions with several references.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
from nltk.stem.porter import PorterStemmer
from rouge_score.rouge_scorer import RougeScorer

from mta_framework import Generations
from mta_plugins.metrics.rouge_l import RougeL

RESPONSES = Path(__file__).parents[1] / "golden" / "responses_smollm2.jsonl"
SYLLABLES = ("run", "ning", "walk", "ed", "es", "the", "a", "ly", "co", "tion", "x1", "20", "-", "é", "Don't ", "THE ")


def scores(rows, **options):
    predictions, references = zip(*rows, strict=True)
    return (
        RougeL(RougeL.Params(**{"words": "rouge_score", **options})).score(Generations(predictions, references)).scores
    )


def real(folder):
    """(response, references)."""
    pairs = []
    sets = {name: (folder / name / "test.jsonl").read_text(encoding="utf-8").split("\n") for name in ("dolly", "sni")}
    for line in RESPONSES.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        output = json.loads(sets[row["set"]][row["row"]])["output"]
        pairs.append((row["response"], output if isinstance(output, list) else [output]))
    return pairs


def synthetic():
    """Texts that share some words; some are empty, some have words in no common order."""
    draw = random.Random(7)

    def text():
        words = ("".join(draw.choices(SYLLABLES, k=draw.randint(1, 3))) for _ in range(draw.randint(0, 12)))
        return draw.choice([" ", "\n", ", "]).join(words)

    return [(text(), [text() for _ in range(draw.randint(1, 4))]) for _ in range(500)]


@pytest.fixture(params=["real", "synthetic"])
def rows(request):
    pairs = real(request.getfixturevalue("paper_data")) if request.param == "real" else synthetic()
    assert len(pairs) == 500
    assert sum(len(references) > 1 for _, references in pairs) >= 250
    return pairs


@pytest.mark.parametrize("use_stemmer", [True, False])
def test_scores_are_those_of_the_package(rows, use_stemmer):
    package = RougeScorer(["rougeL"], use_stemmer=use_stemmer)
    first = [100 * package.score(references[0], response)["rougeL"].fmeasure for response, references in rows]
    assert list(scores(rows, references="first", use_stemmer=use_stemmer)) == first
    # The rule of the package, and of ``evaluate`` on top of it, for several references.
    best = [100 * package.score_multi(references, response)["rougeL"].fmeasure for response, references in rows]
    assert list(scores(rows, use_stemmer=use_stemmer)) == best
    assert sum(best) > sum(first) > 0


def test_the_best_reference_counts_as_in_minillm(rows):
    """``metric_max_over_ground_truths``: the score against each reference, and the largest of them."""
    package = RougeScorer(["rougeL"], use_stemmer=True)
    expected = []
    for response, references in rows:
        over_references = []
        for reference in references:
            over_references.append(package.score(prediction=response, target=reference)["rougeL"].fmeasure)
        expected.append(100 * max(over_references))
    assert list(scores(rows)) == expected


def test_scores_equal_a_table_of_common_subsequences(rows):
    expected = [max(rouge_l(response, reference) for reference in references) for response, references in rows]
    assert scores(rows) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def rouge_l(response: str, reference: str) -> float:
    ours, theirs = words(response), words(reference)
    lengths = [[0] * (len(theirs) + 1) for _ in range(len(ours) + 1)]
    for i, one in enumerate(ours, 1):
        for j, other in enumerate(theirs, 1):
            same = lengths[i - 1][j - 1] + 1
            lengths[i][j] = same if one == other else max(lengths[i - 1][j], lengths[i][j - 1])
    common = lengths[-1][-1]
    return 200 * common / (len(ours) + len(theirs)) if common else 0.0


def words(text: str) -> list[str]:
    stem = PorterStemmer().stem
    tokens = re.findall("[a-z0-9]+", text.lower())
    return [stem(word) if len(word) > 3 else word for word in tokens]


def test_words_of_english_references_are_those_of_the_package(paper_data):
    rows = real(paper_data)
    assert scores(rows, words="auto") == scores(rows)
