"""ROUGE-L: longest common subsequence of words."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mta_framework import Generations, Metric, PluginParams, ScoreSet


class RougeL(Metric):
    """F1 of the longest common subsequence of words, times 100 (Lin 2004, as in the rouge-score package)."""

    NAME = "rouge_l"
    HUB_NAME = "rouge"

    class Params(PluginParams):
        """Choice of references, and stemming."""

        references: Literal["best", "first"] = Field(
            "best",
            description="Which of several references is scored: the best one (MiniLLM), or the first (MTA's code).",
        )
        use_stemmer: bool = Field(True, description="Compare English word stems (Porter), not the words themselves.")

    params: Params

    def score(self, generations: Generations) -> ScoreSet:
        """Score predictions between 0 and 100; an empty prediction or reference scores 0.

        Words of the rouge-score package are runs of ASCII letters and digits, in lower case: text in other scripts has
        no words and scores 0, as in the published numbers.
        """
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer(["rougeL"], use_stemmer=self.params.use_stemmer)
        first = self.params.references == "first"
        return ScoreSet(
            tuple(
                100.0
                * max(scorer.score(text, prediction)["rougeL"].fmeasure for text in (texts[:1] if first else texts))
                for prediction, texts in zip(generations.predictions, generations.references, strict=True)
            )
        )
