"""Exact match of response and reference."""

from __future__ import annotations

import re
import string
import unicodedata
from decimal import Decimal
from typing import Literal

from pydantic import Field

from mta_framework import Generations, Metric, PluginParams, ScoreSet

_ARTICLES = re.compile(r"\b(a|an|the)\b")
# A hyphen after a letter, digit or closing bracket is no minus sign.
_NUMBER = re.compile(r"(?:(?<![\w)])[-−])?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)")


class ExactMatch(Metric):
    """100 if the response equals a reference, ignoring case, punctuation, articles and white space (SQuAD), else 0."""

    NAME = "exact_match"

    class Params(PluginParams):
        """Part of the texts that is compared, and choice of references."""

        compare: Literal["text", "last_number"] = Field(
            "text", description="What is compared: the whole texts, or the last number in each (GSM8K), as numbers."
        )
        references: Literal["any", "first"] = Field(
            "any", description="Which of several references the response may match: any of them, or only the first."
        )

    params: Params

    def score(self, generations: Generations) -> ScoreSet:
        """Score predictions 100 or 0; when last numbers are compared, a text without a number matches nothing."""
        first = self.params.references == "first"
        pairs = zip(generations.predictions, generations.references, strict=True)
        return ScoreSet(
            tuple(
                100.0 * any(self._equal(prediction, text) for text in (texts[:1] if first else texts))
                for prediction, texts in pairs
            )
        )

    def _equal(self, prediction: str, reference: str) -> bool:
        if self.params.compare == "text":
            return _normalised(prediction) == _normalised(reference)
        number = _last_number(prediction)
        return number is not None and number == _last_number(reference)


def _normalised(text: str) -> str:
    words = "".join(character for character in text.lower() if not _is_punctuation(character))
    # An answer that is an article or a sign, e.g. the choice "A" or the operator "+", must not become empty.
    return " ".join(_ARTICLES.sub(" ", words).split() or words.split() or text.split())


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def _last_number(text: str) -> Decimal | None:
    matches = _NUMBER.findall(text)
    return Decimal(matches[-1].replace(",", "").replace("−", "-")) if matches else None
