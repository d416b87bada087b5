"""Which characters a generated token stands for.

Generated tokens need not be those that a tokenizer would make of their text, so its offsets may not fit them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def text_of(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of generated tokens, special ones left out."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def generated_offsets(ids: Sequence[int], text: str, tokenizer: PreTrainedTokenizerBase) -> NDArray[np.int32]:
    """The character ranges of generated tokens, from what their beginnings decode to.

    Each token reaches from where the tokens before it end to where the beginning that ends with it does. What such a
    beginning says of its last character may change with the next token: a character whose bytes several tokens share
    belongs to each of them, as it does in the offsets of a tokenizer.

    Args:
        ids: T tokens.
        text: What ``text_of`` makes of all of them.
        tokenizer: Decodes.

    Returns:
        (T, 2) half-open ranges into ``text``; starts and ends ascend, and no character is left out. Tokens without
        characters, such as special ones, have empty ranges, except within a character, which they share.
    """
    offset_T2 = np.zeros((len(ids), 2), dtype=np.int32)
    settled = reached = 0
    for token in range(len(ids)):
        beginning = text_of(ids[: token + 1], tokenizer)
        start, agreeing = settled, _agreeing(beginning, text)
        settled = max(settled, agreeing)
        reached = max(reached, min(settled + (agreeing < len(beginning)), len(text)))
        offset_T2[token] = start, reached
    return offset_T2


def _agreeing(beginning: str, text: str) -> int:
    """How many characters the two have in common from their start."""
    if text.startswith(beginning):
        return len(beginning)
    pairs = enumerate(zip(beginning, text, strict=False))
    return next((place for place, (one, other) in pairs if one != other), len(text))
