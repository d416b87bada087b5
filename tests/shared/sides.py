"""Tokenises samples as the tokenizers by themselves say that a response ends."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from mta_framework.data.tokens import SampleTokenizer
from mta_framework.models.turn_end import settle_turn_end


def sides(max_length: int, *tokenizers: PreTrainedTokenizerBase | None) -> list[SampleTokenizer]:
    """One for each tokenizer, without those that are None."""
    return [
        SampleTokenizer(tokenizer, settle_turn_end(tokenizer, ()), max_length)
        for tokenizer in tokenizers
        if tokenizer is not None
    ]
