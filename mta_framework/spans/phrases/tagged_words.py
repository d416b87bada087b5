"""The words of a parsed sentence, as far as phrases need them."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Protocol

from mta_framework.types import Span

NOMINAL = frozenset({"NOUN", "PROPN", "PRON"})
ADVERBIAL = frozenset({"ADV", "PART"})
VERBAL = frozenset({"VERB", "AUX"}) | ADVERBIAL
HEADS = NOMINAL | {"VERB"}
"""Part-of-speech tags of words that head a phrase."""


class Word(Protocol):
    """A word annotated with Universal Dependencies; annotations that the parser lacks are None.

    Attributes:
        text: The word as written.
        upos: Universal part-of-speech tag, e.g. ``NOUN``.
        head: 1-based index of the word that it depends on; 0 for the root.
        deprel: Relation to that word, e.g. ``nsubj`` or ``nmod:poss``.
    """

    @property
    def text(self) -> str:
        """The word as written."""

    @property
    def upos(self) -> str | None:
        """Universal part-of-speech tag, e.g. ``NOUN``."""

    @property
    def head(self) -> int | None:
        """1-based index of the word that it depends on; 0 for the root."""

    @property
    def deprel(self) -> str | None:
        """Relation to the word that it depends on, e.g. ``nsubj``."""


def has_any(words: Sequence[Word], run: Span, tags: Set[str]) -> bool:
    """Return whether any word of a range has one of the given part-of-speech tags."""
    return any(word.upos in tags for word in words[run[0] : run[1]])


def trimmed(words: Sequence[Word], run: Span, tags: Set[str]) -> Span:
    """Trim words with the given part-of-speech tags from both ends of a range, which must contain another word."""
    first, end = run
    while words[first].upos in tags:
        first += 1
    while words[end - 1].upos in tags:
        end -= 1
    return first, end
