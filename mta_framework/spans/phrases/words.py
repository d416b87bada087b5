"""What a parser says of the words of a sentence, as far as phrases need it."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Protocol

from mta_framework.types import Span

NOMINAL = frozenset({"NOUN", "PROPN", "PRON"})
ADVERBIAL = frozenset({"ADV", "PART"})
VERBAL = frozenset({"VERB", "AUX"}) | ADVERBIAL
HEADS = NOMINAL | {"VERB"}
"""Tags of words that head a phrase."""


class Word(Protocol):
    """A word in the terms of Universal Dependencies; what a parser left out is None.

    Attributes:
        text: As written.
        upos: Part of speech, e.g. ``NOUN``.
        head: The number of the word that it depends on, from 1; 0 is the root.
        deprel: Its relation to that word, e.g. ``nsubj`` or ``nmod:poss``.
    """

    @property
    def text(self) -> str:
        """As written."""

    @property
    def upos(self) -> str | None:
        """Part of speech."""

    @property
    def head(self) -> int | None:
        """The word that it depends on."""

    @property
    def deprel(self) -> str | None:
        """Its relation to that word."""


def has_any(words: Sequence[Word], run: Span, tags: Set[str]) -> bool:
    """Whether a range of words has one with any of these tags."""
    return any(word.upos in tags for word in words[run[0] : run[1]])


def trimmed(words: Sequence[Word], run: Span, tags: Set[str]) -> Span:
    """A range of words without those with any of these tags at its ends; one with another tag is in it."""
    first, end = run
    while words[first].upos in tags:
        first += 1
    while words[end - 1].upos in tags:
        end -= 1
    return first, end
