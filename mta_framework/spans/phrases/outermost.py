"""Rules on phrases and their words, shared by span extractors. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mta_framework.types import Span


def outermost_phrases(phrases: Iterable[Span]) -> list[Span]:
    """Drop phrases that lie inside other phrases.

    As in the experiments of the MTA paper (arXiv 2605.01374v2), phrases are sorted by (start, -end), and one that ends
    no later than the last kept one is dropped. The remaining phrases may still overlap partially.

    Args:
        phrases: Half-open ranges of characters or tokens, in any order; duplicates are dropped too.

    Returns:
        The remaining phrases, sorted.
    """
    kept: list[Span] = []
    for start, end in sorted(phrases, key=lambda phrase: (phrase[0], -phrase[1])):
        if not kept or end > kept[-1][1]:
            kept.append((start, end))
    return kept


def words_within(tokens: Sequence[Span], phrases: Iterable[Span], repeat: bool = False) -> list[Span]:
    """List the words of phrases: each token extends to the start of the next in its phrase, the last one to its end.

    Args:
        tokens: Character ranges of all tokens of the text.
        phrases: Half-open, non-empty ranges of token indices.
        repeat: Whether a word that two phrases share is listed twice, as by the code of MTA's authors.

    Returns:
        Character ranges, sorted by (start, -end); without ``repeat`` each once.
    """
    words: list[Span] = []
    for first, end in phrases:
        words += [(tokens[index][0], tokens[index + 1][0]) for index in range(first, end - 1)]
        words.append(tokens[end - 1])
    return sorted(words if repeat else set(words), key=lambda word: (word[0], -word[1]))
