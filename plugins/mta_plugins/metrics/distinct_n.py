"""Share of distinct n-grams in a response, a measure of repetition."""

from __future__ import annotations

import itertools
import unicodedata

from pydantic import Field

from mta_framework import Generations, Metric, PluginParams, ScoreSet

# Zero-width joiner and non-joiner occur within words of Persian and Indic scripts.
_JOINERS = "_\u200c\u200d"


class DistinctN(Metric):
    """Number of distinct n-grams of a response per n-gram, times 100: 100 without repetition (after Li et al. 2016)."""

    NAME = "distinct_n"

    class Params(PluginParams):
        """Length of the n-grams."""

        n: int = Field(2, ge=1, le=10, description="Number of words per n-gram.")

    params: Params

    def score(self, generations: Generations) -> ScoreSet:
        """Score predictions between 0 and 100, ignoring the references; fewer than n words score 0.

        Words are runs of letters with their marks, digits and underscores in any script, in lower case.
        """
        return ScoreSet(tuple(map(self._distinct, generations.predictions)))

    def _distinct(self, text: str) -> float:
        words = _words(text.lower())
        grams = list(zip(*(words[start:] for start in range(self.params.n)), strict=False))
        return 100.0 * len(set(grams)) / len(grams) if grams else 0.0


def _words(text: str) -> list[str]:
    return ["".join(run) for inside, run in itertools.groupby(text, _is_word_character) if inside]


def _is_word_character(character: str) -> bool:
    # Marks are vowels in many scripts; the word class of regular expressions excludes them.
    return character.isalnum() or character in _JOINERS or unicodedata.category(character).startswith("M")
