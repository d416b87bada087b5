"""Noun phrases and verb groups of parsed sentences, for span extractors that bring a parser. No torch.

``by_constituents`` or ``by_dependencies`` finds phrases as ranges of words, ``outermost_phrases`` drops phrases inside
others, ``words_within`` lists the words of the remaining phrases.
"""

from __future__ import annotations

from mta_framework.spans.phrases.constituents import Tree, by_constituents
from mta_framework.spans.phrases.dependencies import by_dependencies
from mta_framework.spans.phrases.outermost import outermost_phrases, words_within
from mta_framework.spans.phrases.tagged_words import HEADS, Word

__all__ = ["HEADS", "Tree", "Word", "by_constituents", "by_dependencies", "outermost_phrases", "words_within"]
