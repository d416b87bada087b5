"""Character offsets of generated tokens.

A model may generate other tokens than the tokenizer would produce for the same text, so the tokenizer's offsets may not
fit them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def text_of(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, before: Sequence[int] = ()) -> str:
    """Decode generated tokens, leaving out special tokens.

    Args:
        ids: Token ids.
        tokenizer: Tokenizer that decodes.
        before: Token ids that the text continues; empty: none. Some tokenizers (Llama 2) leave out the space before the
            first token that they decode.
    """
    start, text = (
        str(tokenizer.decode(part, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        for part in ([*before], [*before, *ids])
    )
    return text[len(start) :]


def generated_offsets(
    ids: Sequence[int], text: str, tokenizer: PreTrainedTokenizerBase, before: Sequence[int] = ()
) -> NDArray[np.int32]:
    """Compute the character ranges of generated tokens by decoding every prefix of the tokens.

    A token ranges from the end of the decoded tokens before it to the end of the decoded tokens up to and including it.
    The last character of a decoded prefix may change with the next token; a character whose bytes are split over
    several tokens belongs to each of them, as in the offsets of a tokenizer.

    Args:
        ids: T token ids.
        text: The decoded text, as from ``text_of(ids, tokenizer, before)``.
        tokenizer: Tokenizer that decodes.
        before: Token ids that the text continues; empty: none.

    Returns:
        (T, 2) half-open ranges into ``text``, int32. Starts and ends ascend, and every character is covered. Tokens
        without characters, such as special ones, have empty ranges, except inside a split character, which they share.
    """
    offset_T2 = np.zeros((len(ids), 2), dtype=np.int32)
    settled = reached = 0
    for token in range(len(ids)):
        prefix = text_of(ids[: token + 1], tokenizer, before)
        start, common = settled, _common_length(prefix, text)
        settled = max(settled, common)
        reached = max(reached, min(settled + (common < len(prefix)), len(text)))
        offset_T2[token] = start, reached
    return offset_T2


def _common_length(prefix: str, text: str) -> int:
    """Length of the longest common prefix."""
    if text.startswith(prefix):
        return len(prefix)
    pairs = enumerate(zip(prefix, text, strict=False))
    return next((position for position, (a, b) in pairs if a != b), len(text))
