"""The rules on phrases and their words that span extractors share. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mta_framework.types import Span


def outermost_phrases(found: Iterable[Span]) -> list[Span]:
    """Leave out phrases that lie in others.

    As in the experiments of the MTA paper (arXiv 2605.01374): they are sorted by (start, -end), and one that ends no
    later than the last kept one is dropped. What is left may still overlap in part.

    Args:
        found: Half-open ranges of characters or tokens, in any order; repetitions are dropped too.
    """
    kept: list[Span] = []
    for start, end in sorted(found, key=lambda phrase: (phrase[0], -phrase[1])):
        if not kept or end > kept[-1][1]:
            kept.append((start, end))
    return kept


def words_within(tokens: Sequence[Span], phrases: Iterable[Span]) -> list[Span]:
    """The words of phrases: each token up to the beginning of the next in its phrase, the last one up to its end.

    Args:
        tokens: Character ranges of all tokens of the text.
        phrases: Half-open, non-empty ranges of token numbers.

    Returns:
        Character ranges, sorted by (start, -end); one that two phrases share is listed once.
    """
    words: set[Span] = set()
    for first, end in phrases:
        words.update((tokens[number][0], tokens[number + 1][0]) for number in range(first, end - 1))
        words.add(tokens[end - 1])
    return sorted(words, key=lambda word: (word[0], -word[1]))
