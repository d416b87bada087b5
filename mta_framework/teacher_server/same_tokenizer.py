"""Holds the tokenizer of a server to that of the run, by what both make of a text or of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerBase

from mta_framework.errors import RunError
from mta_framework.teacher_server.completions import Completions, answer_fault

if TYPE_CHECKING:
    from httpx2 import Client

PROBE = (
    "The quick brown fox jumps over 13 lazy dogs, don't they?\n\n\tdef area(r): return 3.14159 * r**2  # π r²\n"
    'Größe, naïve façade, Ωμέγα, Привет мир, 日本語のテキスト, 안녕하세요, العربية, नमस्ते 🙂 {"a": [1, 2.50]}'
)
"""Text in several scripts, with numbers, code and white space, which tokenizers cut in their own ways."""

_HINT = "Name the teacher that the server has, or serve the one that the spec names."


def compare_tokenizers(client: Client, completions: Completions, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Compare what server and tokenizer make of a text.

    Args:
        client: HTTP client of the server.
        completions: The teacher at the server.
        tokenizer: Tokenizer of the run.

    Returns:
        Whether both agree; False where the server offers no tokenizer.

    Raises:
        RunError: They differ.
    """
    ids = completions.tokenize(client, PROBE)
    if ids is None:
        return False
    expected = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    if ids != expected:
        problem = f"has another tokenizer (got {len(ids)} tokens of a text that has {len(expected)})"
        raise _fault(completions, problem)
    return True


def compare_decoded(
    completions: Completions, text_of: Mapping[int, str], tokenizer: PreTrainedTokenizerBase
) -> set[int]:
    """Compare the texts of tokens in an answer with those of the tokenizer; only those that are plain words or digits.

    Args:
        completions: The teacher at the server.
        text_of: Text of tokens by their id.
        tokenizer: Tokenizer of the run.

    Returns:
        Ids of the tokens that were compared.

    Raises:
        RunError: They differ.
    """
    words = {index: text.strip() for index, text in text_of.items()}
    words = {index: text for index, text in words.items() if text.isascii() and text.isalnum()}
    for index, text in words.items():
        if index >= len(tokenizer) or str(tokenizer.decode([index])).strip() != text:
            problem = f"has another tokenizer (got {text!r} for token {index})"
            raise _fault(completions, problem)
    return set(words)


def _fault(completions: Completions, problem: str) -> RunError:
    expected = f"the tokenizer of {completions.field}.hub or {completions.field}.path"
    return answer_fault(completions.where, problem, expected, _HINT)
