"""ROUGE-L: the longest common subsequence of words."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mta_framework import Generations, Metric, PluginParams, ScoreSet


class RougeL(Metric):
    """F1 of the longest common subsequence of words, times 100 (Lin 2004, as in the rouge-score package)."""

    NAME = "rouge_l"
    HUB_NAME = "rouge"

    class Params(PluginParams):
        """Which references count, and whether word endings do."""

        references: Literal["best", "first"] = Field(
            "best", description="Of several references, the one that scores best (MiniLLM), or the first (MTA's code)."
        )
        use_stemmer: bool = Field(True, description="Compare English word stems (Porter), not the words themselves.")

    params: Params

    def score(self, generations: Generations) -> ScoreSet:
        """Score predictions between 0 and 100; an empty prediction or reference scores 0.

        The package's words are runs of ASCII letters and digits, in lower case: text in other scripts has none and
        scores 0, as in the published numbers.
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
