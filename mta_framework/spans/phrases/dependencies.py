"""Finds noun phrases and verb groups in a dependency tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mta_framework.spans.phrases.tagged_words import ADVERBIAL, NOMINAL, Word, trimmed
from mta_framework.types import Span

_LEFT = {"det", "amod", "nummod", "nmod", "compound", "flat", "fixed", "goeswith", "clf"}
_RIGHT = _LEFT - {"nmod"}
"""Relations of the dependents of a noun that belong to its phrase, before and after it."""

_PARTS = {"fixed", "goeswith", "clf"}
"""Relations of words that are never a phrase by themselves."""

_CLAUSES = {"acl", "advcl", "ccomp", "csubj", "parataxis"}


def by_dependencies(words: Sequence[Word]) -> list[Span]:
    """Find noun phrases and verb groups by the relations of Universal Dependencies.

    A noun phrase is a noun, name or pronoun with its determiners, adjectives, numbers, compounds and fixed parts, and
    the nouns before it that modify it, without clauses and prepositional phrases. A verb group is a verb with its
    auxiliaries, adverbs and particles. Of both, only words contiguous with the head are kept.

    Args:
        words: Words of one sentence.

    Returns:
        Half-open ranges of word indices, unsorted, possibly nested.
    """
    dependents: list[list[int]] = [[] for _ in words]
    for index, word in enumerate(words):
        if word.head:
            dependents[word.head - 1].append(index)
    phrases = []
    for index, word in enumerate(words):
        if word.upos in NOMINAL and _relation(word) not in _PARTS:
            phrases.append(_run(index, words, _noun_parts(index, words, dependents)))
        elif word.upos == "VERB":
            phrases.append(_run(index, words, _verb_parts(index, words, dependents)))
    return phrases


def _noun_parts(noun: int, words: Sequence[Word], dependents: Sequence[Sequence[int]]) -> Iterator[int]:
    for index in dependents[noun]:
        parts = _subtree(index, dependents)
        inside = {_relation(words[part]) for part in parts}
        relation = _relation(words[index])
        if index < noun:
            belongs = relation in _LEFT and not inside & _CLAUSES
        else:
            belongs = relation in _RIGHT and not inside & (_CLAUSES | {"case", "mark"})
        if belongs or relation == "punct":
            yield from parts


def _verb_parts(verb: int, words: Sequence[Word], dependents: Sequence[Sequence[int]]) -> Iterator[int]:
    for index in dependents[verb]:
        parts, relation = _subtree(index, dependents), _relation(words[index])
        adverbial = relation == "advmod" and all(words[part].upos in ADVERBIAL for part in parts)
        if adverbial or relation in {"aux", "compound"}:
            yield from parts


def _relation(word: Word) -> str:
    return (word.deprel or "").partition(":")[0]


def _subtree(root: int, dependents: Sequence[Sequence[int]]) -> list[int]:
    indices = [root]
    for index in indices:
        indices += dependents[index]
    return indices


def _run(head: int, words: Sequence[Word], parts: Iterable[int]) -> Span:
    """The parts contiguous with the head, with punctuation inside but not at the ends."""
    inside = {head, *parts}
    first = end = head
    while first - 1 in inside:
        first -= 1
    while end + 1 in inside:
        end += 1
    return trimmed(words, (first, end + 1), {"PUNCT"})
