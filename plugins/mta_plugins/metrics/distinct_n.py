"""Distinct n-grams: how little a response repeats itself."""

from __future__ import annotations

import itertools
import unicodedata

from pydantic import Field

from mta_framework import Generations, Metric, PluginParams, ScoreSet

# Zero-width joiner and non-joiner stand within words of Persian and Indic scripts.
_JOINERS = "_\u200c\u200d"


class DistinctN(Metric):
    """Distinct n-grams of a response per n-gram, times 100: 100 where none is repeated (after Li et al. 2016)."""

    NAME = "distinct_n"

    class Params(PluginParams):
        """The length of the n-grams."""

        n: int = Field(2, ge=1, le=10, description="Words per n-gram.")

    params: Params

    def score(self, generations: Generations) -> ScoreSet:
        """Score predictions between 0 and 100, whatever the references; one of fewer than n words scores 0.

        Words are runs of letters with their marks, digits and underscores in any script, in lower case.
        """
        return ScoreSet(tuple(map(self._distinct, generations.predictions)))

    def _distinct(self, text: str) -> float:
        words = _words(text.lower())
        grams = list(zip(*(words[start:] for start in range(self.params.n)), strict=False))
        return 100.0 * len(set(grams)) / len(grams) if grams else 0.0


def _words(text: str) -> list[str]:
    return ["".join(run) for inside, run in itertools.groupby(text, _of_a_word) if inside]


def _of_a_word(character: str) -> bool:
    # Marks are vowels in many scripts, which regular expressions take for the end of a word.
    return character.isalnum() or character in _JOINERS or unicodedata.category(character).startswith("M")
