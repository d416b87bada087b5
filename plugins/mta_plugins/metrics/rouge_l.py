"""ROUGE-L: longest common subsequence of words."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mta_framework import Generations, Metric, PluginParams, ScoreSet
from mta_framework.spans.words_by_script import words_by_script

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer


class RougeL(Metric):
    """F1 of the longest common subsequence of words, times 100 (Lin 2004, as in the rouge-score package)."""

    NAME = "rouge_l"
    PACKAGES = ("rouge-score",)
    HUB_NAME = "rouge"

    class Params(PluginParams):
        """Choice of references, words, and stemming."""

        references: Literal["best", "first"] = Field(
            "best",
            description="Which of several references is scored: the best one (MiniLLM), or the first (MTA's code).",
        )
        words: Literal["auto", "rouge_score", "any_script", "characters"] = Field(
            "auto",
            description="Words that are compared: runs of ASCII letters and digits (rouge_score, as in published "
            "numbers), words in any script, or characters; auto takes the first of these that suits the reference.",
        )
        use_stemmer: bool = Field(
            True, description="Compare English word stems (Porter), not the words themselves; with rouge_score only."
        )

    params: Params

    def score(self, generations: Generations) -> ScoreSet:
        """Score predictions between 0 and 100; an empty prediction scores 0.

        A prompt whose references have no words is not scored: it has weight 0 in the mean.

        Raises:
            ValueError: No reference of any prompt has words.
        """
        first = self.params.references == "first"
        rows = [
            [self._f1(prediction, text) for text in (texts[:1] if first else texts)]
            for prediction, texts in zip(generations.predictions, generations.references, strict=True)
        ]
        scored = [[f1 for f1 in row if f1 is not None] for row in rows]
        if rows and not any(scored):
            raise ValueError(f"no reference has words (got words={self.params.words})")
        weights = tuple(float(bool(row)) for row in scored)
        return ScoreSet(tuple(100.0 * max(row, default=0.0) for row in scored), None if all(weights) else weights)

    def _f1(self, prediction: str, reference: str) -> float | None:
        """F1 between 0 and 1; None if the reference has no words.

        ``auto`` takes the first kind that finds words in it, that of rouge_score in mostly ASCII text alone.
        """
        for words, scorer in self._scorers.items():
            if self.params.words == "auto":
                suits = words != "rouge_score" or _mostly_ascii(reference)
            else:
                suits = words == self.params.words
            if suits and scorer._tokenizer.tokenize(reference):
                return float(scorer.score(reference, prediction)["rougeL"].fmeasure)
        return None

    @cached_property
    def _scorers(self) -> dict[str, RougeScorer]:
        from rouge_score.rouge_scorer import RougeScorer

        return {
            "rouge_score": RougeScorer(["rougeL"], use_stemmer=self.params.use_stemmer),
            "any_script": RougeScorer(["rougeL"], tokenizer=_AnyScript()),
            "characters": RougeScorer(["rougeL"], tokenizer=_Characters()),
        }


class _AnyScript:
    def tokenize(self, text: str) -> list[str]:
        return words_by_script(text.lower())


class _Characters:
    def tokenize(self, text: str) -> list[str]:
        return [character for character in text.lower() if not character.isspace()]


def _mostly_ascii(text: str) -> bool:
    letters = [character.isascii() for character in text if character.isalpha()]
    return 2 * sum(letters) >= len(letters)
