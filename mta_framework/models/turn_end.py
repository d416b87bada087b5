"""Settles what ends a response: from the chat template, the tokenizers and the generation settings of the models."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from mta_framework.errors import error_message
from mta_framework.timers import time_limit

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

_ANSWERS = ("one", "two")
"""Differ in their last letters, so that what is written after both of them is what the template adds."""

TEMPLATE_SECONDS = 10.0
"""Longest time that a chat template may take for one conversation: it may be somebody else's program."""

_LONGEST_SHOWN = 60
"""Characters of what a template writes that a message quotes."""


@dataclass(frozen=True)
class TurnEnd:
    """The tokens that end a response of a model.

    Args:
        plain_id: Id of the token that ends a response outside of conversations: the tokenizer's end token.
        chat_id: Id of the token that the chat template writes at the end of an answer; None where it is not settled.
        stop_ids: Ids of all tokens at which generation stops, ascending; the two above are among them.
        chat_problem: Why ``chat_id`` is None; empty where it is settled.
    """

    plain_id: int
    chat_id: int | None
    stop_ids: tuple[int, ...]
    chat_problem: str = ""


def settle_turn_end(tokenizer: PreTrainedTokenizerBase, stored_ids: Iterable[int]) -> TurnEnd:
    """Settle what ends a response of the models that use a tokenizer.

    In a conversation the chat template decides: a response ends with the first end token that it writes after every
    answer, or else with the first token after every answer that was added to the vocabulary; where there is none, with
    the first such token after the last answer. Where it writes nothing but white space, and outside of conversations,
    the tokenizer's end token ends a response.

    Generation stops at both, and at the stored end tokens that are special tokens of the tokenizer: chat models often
    stop at several tokens, which only their generation settings list; but the default of a newly initialised model may
    be an ordinary word of its tokenizer.

    Args:
        tokenizer: Tokenizer with an end token.
        stored_ids: End tokens in the generation settings of all models that use these ids.
    """
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    ends = {tokenizer.eos_token_id, *special.intersection(stored_ids)}
    chat_id, problem = _chat_end(tokenizer, ends)
    if chat_id is not None:
        ends.add(chat_id)
    return TurnEnd(tokenizer.eos_token_id, chat_id, tuple(sorted(ends)), problem)


def chat_end_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the text of the token that ends an answer in a conversation; empty where it is not settled."""
    chat_id, _ = _chat_end(tokenizer, {tokenizer.eos_token_id})
    return "" if chat_id is None else str(tokenizer.convert_ids_to_tokens(chat_id))


def stored_end_ids(stored: GenerationConfig | None) -> tuple[int, ...]:
    """Return the end tokens of stored generation settings; none where there are no settings or they name none."""
    named = stored.eos_token_id if stored is not None else None
    candidates = named if isinstance(named, list | tuple) else [named]
    return tuple(index for index in candidates if isinstance(index, int))


def _chat_end(tokenizer: PreTrainedTokenizerBase, ends: Collection[int]) -> tuple[int | None, str]:
    """The token that ends an answer, or None and the reason."""
    if not tokenizer.chat_template:
        return None, "the tokenizer has no chat template"
    question = {"role": "user", "content": "question"}
    conversations = [[question, {"role": "assistant", "content": answer}] for answer in _ANSWERS]
    try:
        with time_limit(TEMPLATE_SECONDS):
            texts = [_rendered(tokenizer, turns) for turns in conversations]
    except Exception as error:  # a template is foreign code: it may raise anything
        return None, f"the chat template refuses a question with its answer ({error_message(error)})"
    if texts[0] == texts[1]:
        return None, "the chat template leaves out the answer"
    after = _common_prefix(texts[0][::-1], texts[1][::-1])[::-1]
    if not after.strip():
        return tokenizer.eos_token_id, ""
    answered = len(texts[0]) - len(after)
    every_time = _common_prefix(texts[0], _rendered_longer(tokenizer, [*conversations[0], question]))[answered:]
    added = _added_tokens(tokenizer, every_time) or _added_tokens(tokenizer, after)
    if not added:
        shown = after.strip()[:_LONGEST_SHOWN]
        return None, f"the chat template ends an answer with {shown!r}, which is no single token of the tokenizer"
    return next((index for index in added if index in ends), added[0]), ""


def _rendered(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Mapping[str, str]]) -> str:
    return str(tokenizer.apply_chat_template([dict(turn) for turn in turns], tokenize=False))


def _rendered_longer(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Mapping[str, str]]) -> str:
    """The text of a conversation that goes on after its answer; empty where the template refuses it."""
    try:
        with time_limit(TEMPLATE_SECONDS):
            return _rendered(tokenizer, turns)
    except Exception:  # a template is foreign code: it may raise anything
        return ""


def _common_prefix(first: str, second: str) -> str:
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return "".join(character for character, _ in pairs)


def _added_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    return [index for index in ids if index in tokenizer.added_tokens_decoder]
