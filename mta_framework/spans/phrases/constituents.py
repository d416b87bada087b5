"""Finds noun phrases and verb groups in a constituency tree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mta_framework.spans.phrases.tagged_words import ADVERBIAL, HEADS, NOMINAL, VERBAL, Word, has_any, trimmed
from mta_framework.types import Span

_NOUN_LABELS = {"NP", "WHNP", "NX"}
_BREAKS = {"PP", "WHPP", "VP", "S", "SBAR", "SBARQ", "SINV", "SQ", "PRN", "FRAG", "RRC", "IP", "CP"}
"""Constituents that end a noun phrase: clauses, prepositional phrases, parentheses."""

_COMMAS = set(",;:/、，；：،؛")


class Tree(Protocol):
    """A node of a constituency tree: a constituent, a tag with a word as its only child, or a word without children."""

    @property
    def label(self) -> str:
        """Label of the constituent or tag, e.g. ``NP`` or ``NP-SBJ``, or the word."""

    @property
    def children(self) -> Sequence[Tree]:
        """Child nodes, from left to right."""


@dataclass
class _Node:
    """A constituent as a range of words.

    Attributes:
        runs: Noun phrases in it, if it is an NP.
        whole: Whether it can be part of the noun phrase of another NP.
    """

    label: str
    children: list[_Node] = field(default_factory=list)
    first: int = 0
    end: int = 0
    runs: list[Span] = field(default_factory=list)
    whole: bool = True


def by_constituents(tree: Tree, words: Sequence[Word]) -> list[Span]:
    """Find noun phrases and verb groups in the constituents NP and VP of a sentence.

    A noun phrase is an NP up to a clause, prepositional phrase or parenthesis in it; coordinated nouns are separate
    phrases. A verb group is the verb of a VP with adjacent auxiliaries, adverbs and particles, followed down the chain
    of VPs that auxiliaries form; a group without a full verb is dropped. Nouns, pronouns and verbs outside of both,
    which many treebanks have, are phrases of one word.

    Args:
        tree: Constituency tree of the sentence, with a leaf for each word.
        words: Words of the sentence, of which texts and parts of speech are used.

    Returns:
        Half-open ranges of word indices, unsorted, possibly nested.

    Raises:
        ValueError: The number of leaves is not the number of words.
    """
    nodes = _nodes(tree)
    if nodes[0].end != len(words):
        raise ValueError(f"a tree with {nodes[0].end} leaves is not one of {len(words)} words")
    for node in reversed(nodes):
        if node.children:
            _look_into(node, words)
    phrases = [run for node in nodes for run in node.runs]
    inner = {id(_inner_verb(node)) for node in nodes if node.label == "VP"}
    starts = (node for node in nodes if node.label == "VP" and node.children and id(node) not in inner)
    phrases += [run for run in (_verb_run(node, words) for node in starts) if run]
    covered = {index for first, end in phrases for index in range(first, end)}
    lone = (index for index, word in enumerate(words) if word.upos in HEADS and index not in covered)
    return phrases + [(index, index + 1) for index in lone]


def _nodes(tree: Tree) -> list[_Node]:
    """All constituents and tags, outer ones first; iterative, since trees may be deep."""
    nodes: list[_Node] = []
    above: list[tuple[Tree, _Node | None]] = [(tree, None)]
    index = 0
    while above:
        branch, parent = above.pop()
        node = _Node(re.split("[-=#*]", branch.label)[0])
        nodes.append(node)
        if parent:
            parent.children.append(node)
        if not any(child.children for child in branch.children):
            node.first, node.end = index, index + 1
            index += 1
        else:
            above += [(child, node) for child in reversed(branch.children)]
    for node in reversed(nodes):
        if node.children:
            node.first, node.end = node.children[0].first, node.children[-1].end
    return nodes


def _look_into(node: _Node, words: Sequence[Word]) -> None:
    if node.label in _NOUN_LABELS:
        node.runs = list(_noun_runs(node, words))
    within = all(child.whole for child in node.children)
    node.whole = within and node.label not in _BREAKS and len(node.runs) < 2


def _noun_runs(node: _Node, words: Sequence[Word]) -> Iterator[Span]:
    """Children of an NP up to a clause or the like; coordinated nouns separately."""
    run: Span | None = None
    for child in node.children:
        if child.whole and not _joins(child, words):
            run = (run[0] if run else child.first, child.end)
        elif run and (not child.whole or has_any(words, run, NOMINAL)):
            yield from _nominal(run, words)
            run = None
    yield from _nominal(run, words)


def _nominal(run: Span | None, words: Sequence[Word]) -> Iterator[Span]:
    if run and has_any(words, run, NOMINAL):
        yield trimmed(words, run, {"PUNCT"})


def _joins(node: _Node, words: Sequence[Word]) -> bool:
    word = words[node.first]
    return node.label == "CONJP" or (not node.children and (word.upos == "CCONJ" or word.text in _COMMAS))


def _inner_verb(node: _Node) -> _Node | None:
    return next((child for child in node.children if child.label == "VP" and child.children), None)


def _verb_run(node: _Node, words: Sequence[Word]) -> Span | None:
    """The verb of a VP with adjacent auxiliaries, adverbs and particles, down the chain of VPs of auxiliaries."""
    run: Span | None = None
    below: _Node | None = node
    while below:
        inner = _inner_verb(below)
        for child in below.children:
            if child is inner:
                break
            if _is_verbal(child, words):
                run = (run[0] if run else child.first, child.end)
            elif run and has_any(words, run, {"VERB"}):
                return _without_to(run, words)
            else:
                run = None
        below = inner
    return _without_to(run, words) if run and has_any(words, run, {"VERB"}) else None


def _without_to(run: Span, words: Sequence[Word]) -> Span:
    first, end = run
    while words[first].upos == "PART":
        first += 1
    return first, end


def _is_verbal(node: _Node, words: Sequence[Word]) -> bool:
    if not node.children:
        return node.label == "RP" or words[node.first].upos in VERBAL
    return node.label == "PRT" or all(word.upos in ADVERBIAL for word in words[node.first : node.end])
