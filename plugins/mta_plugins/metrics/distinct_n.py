"""Share of distinct n-grams in a response, a measure of repetition."""

from __future__ import annotations

from pydantic import Field

from mta_framework import Generations, Metric, PluginParams, ScoreSet
from mta_framework.spans.words_by_script import words_by_script


class DistinctN(Metric):
    """Number of distinct n-grams of a response per n-gram, times 100: 100 without repetition (after Li et al. 2016)."""

    NAME = "distinct_n"

    class Params(PluginParams):
        """Length of the n-grams."""

        n: int = Field(2, ge=1, le=10, description="Number of words per n-gram.")

    params: Params

    def score(self, generations: Generations) -> ScoreSet:
        """Score predictions between 0 and 100, ignoring the references; fewer than n words score 0.

        Words are runs of letters with their marks, digits and underscores in lower case; in scripts without spaces
        between words, each character with its marks is a word.
        """
        return ScoreSet(tuple(map(self._distinct, generations.predictions)))

    def _distinct(self, text: str) -> float:
        words = words_by_script(text.lower())
        grams = list(zip(*(words[start:] for start in range(self.params.n)), strict=False))
        return 100.0 * len(set(grams)) / len(grams) if grams else 0.0
