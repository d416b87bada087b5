"""Phrases, from what a parser says of a sentence, and the rules that span extractors share. No torch.

For extractors that have a parser of their own: ``by_constituents`` or ``by_dependencies`` give ranges of words,
``outermost_phrases`` drops those that lie in others, ``words_within`` gives the words of what is left.
"""

from __future__ import annotations

from mta_framework.spans.phrases.constituents import Tree, by_constituents
from mta_framework.spans.phrases.dependencies import by_dependencies
from mta_framework.spans.phrases.outermost import outermost_phrases, words_within
from mta_framework.spans.phrases.words import HEADS, Word

__all__ = ["HEADS", "Tree", "Word", "by_constituents", "by_dependencies", "outermost_phrases", "words_within"]
