"""Phrases by dependencies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mta_framework.spans.phrases.words import ADVERBIAL, NOMINAL, Word, trimmed
from mta_framework.types import Span

_LEFT = {"det", "amod", "nummod", "nmod", "compound", "flat", "fixed", "goeswith", "clf"}
_RIGHT = _LEFT - {"nmod"}
"""Dependents of a noun that belong to its phrase, before and after it."""

_PARTS = {"fixed", "goeswith", "clf"}
"""What is never a phrase by itself."""

_CLAUSES = {"acl", "advcl", "ccomp", "csubj", "parataxis"}


def by_dependencies(words: Sequence[Word]) -> list[Span]:
    """Noun phrases and verb groups, by the relations of Universal Dependencies.

    A noun phrase is a noun, name or pronoun with its determiners, adjectives, numbers, compounds and fixed parts, and
    the nouns before it that modify it; without clauses and prepositional phrases. A verb group is a verb with its
    auxiliaries, adverbs and particles. Of both, only what stands together without a gap.

    Args:
        words: Of one sentence.

    Returns:
        Half-open ranges of word numbers, in no order; they may lie in each other.
    """
    dependents: list[list[int]] = [[] for _ in words]
    for number, word in enumerate(words):
        if word.head:
            dependents[word.head - 1].append(number)
    found = []
    for number, word in enumerate(words):
        if word.upos in NOMINAL and _relation(word) not in _PARTS:
            found.append(_run(number, words, _noun_parts(number, words, dependents)))
        elif word.upos == "VERB":
            found.append(_run(number, words, _verb_parts(number, words, dependents)))
    return found


def _noun_parts(noun: int, words: Sequence[Word], dependents: Sequence[Sequence[int]]) -> Iterator[int]:
    for number in dependents[noun]:
        parts = _subtree(number, dependents)
        inside = {_relation(words[part]) for part in parts}
        relation = _relation(words[number])
        if number < noun:
            belongs = relation in _LEFT and not inside & _CLAUSES
        else:
            belongs = relation in _RIGHT and not inside & (_CLAUSES | {"case", "mark"})
        if belongs or relation == "punct":
            yield from parts


def _verb_parts(verb: int, words: Sequence[Word], dependents: Sequence[Sequence[int]]) -> Iterator[int]:
    for number in dependents[verb]:
        parts, relation = _subtree(number, dependents), _relation(words[number])
        adverbial = relation == "advmod" and all(words[part].upos in ADVERBIAL for part in parts)
        if adverbial or relation in {"aux", "compound"}:
            yield from parts


def _relation(word: Word) -> str:
    return (word.deprel or "").partition(":")[0]


def _subtree(root: int, dependents: Sequence[Sequence[int]]) -> list[int]:
    found = [root]
    for number in found:
        found += dependents[number]
    return found


def _run(head: int, words: Sequence[Word], parts: Iterable[int]) -> Span:
    """The parts that stand next to the head without a gap, punctuation inside but not around."""
    inside = {head, *parts}
    first = end = head
    while first - 1 in inside:
        first -= 1
    while end + 1 in inside:
        end += 1
    return trimmed(words, (first, end + 1), {"PUNCT"})
