"""Answers without their reasoning blocks."""

from __future__ import annotations

import chat_templates
import pytest
from transformers import PreTrainedTokenizerFast

from mta_framework.data.chat_template import ChatTemplate
from mta_framework.data.reasoning import marks_to_strip, reasoning_marks


@pytest.mark.parametrize(
    ("text", "opened", "finished", "answer"),
    [
        ("Paris", False, True, "Paris"),
        ("<think>\nWell.\n</think>\n\nParis", False, True, "Paris"),
        ("Well.\n</think>\n\nParis", True, True, "Paris"),
        ("<think>a</think>b <think>c</think> d", False, True, "b <think>c</think> d"),
        ("<think>\nhm\n</think>\n\nIt closes with </think>.", False, True, "It closes with </think>."),
        ("Use <think>x</think> around it.", False, True, "Use <think>x</think> around it."),
        ("Wrap it in a <think> tag.", False, True, "Wrap it in a <think> tag."),
        ("<think>\nWell, let me", False, False, ""),
        ("Paris. <think>\nOr", False, False, "Paris."),
        ("Well, let me", True, False, ""),
        ("Paris", True, True, "Paris"),
        ("Paris", False, False, "Paris"),
        ("", True, False, ""),
    ],
)
def test_the_answer_is_what_follows_the_reasoning(
    chat_tokenizer: PreTrainedTokenizerFast, text: str, opened: bool, finished: bool, answer: str
) -> None:
    chat_tokenizer.chat_template = chat_templates.R1
    marks = reasoning_marks(chat_tokenizer)
    assert marks is not None
    assert marks.answer(text, opened, finished) == answer


def test_reasoning_is_left_out_where_the_template_has_it_or_the_user_says_so(
    chat_tokenizer: PreTrainedTokenizerFast,
) -> None:
    assert marks_to_strip(chat_tokenizer, None) is None
    assert marks_to_strip(chat_tokenizer, True) == ("<think>", "</think>")
    chat_tokenizer.chat_template = chat_templates.QWEN3.replace("think>", "seed:think>")
    assert marks_to_strip(chat_tokenizer, None) == ("<seed:think>", "</seed:think>")
    assert marks_to_strip(chat_tokenizer, False) is None
    chat_tokenizer.chat_template = {"default": chat_templates.CHATML, "tool_use": chat_templates.QWEN3}
    assert marks_to_strip(chat_tokenizer, None) == ("<think>", "</think>")


def test_an_answer_has_a_block_only_at_its_beginning(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    chat_tokenizer.chat_template = chat_templates.R1
    template = ChatTemplate(chat_tokenizer, {})
    assert template.reasons({"role": "assistant", "content": "<think>\nWell.\n</think>\n\nParis"})
    assert not template.reasons({"role": "assistant", "content": "It closes with </think>."})
