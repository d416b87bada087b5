"""Prompts that are too long: what is cut, and what stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import chat_templates
import pytest
from transformers import PreTrainedTokenizerFast

from mta_framework.data.left_cut import Prompt, shorten_prompts
from mta_framework.data.prompts import render_prompts
from mta_framework.data.rows import Instruction, Message, Record
from mta_framework.data.tokens import SampleTokenizer
from mta_framework.models.turn_end import settle_turn_end

Build = Callable[..., PreTrainedTokenizerFast]
CHATML = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def tokenizer(byte_tokenizer: Build) -> PreTrainedTokenizerFast:
    """One token per character in most texts, a ``<s>`` before each and a chat template that writes it as well."""
    built = byte_tokenizer(template="<s> $A")
    built.bos_token, built.chat_template = "<s>", CHATML
    return built


def shortened(record: Record, tokenizer: PreTrainedTokenizerFast, limit: int) -> Prompt | None:
    samples = render_prompts(
        [record], "chat" if isinstance(record.prompt, tuple) else "alpaca", tokenizer, supervise="none"
    )
    texts = SampleTokenizer(tokenizer, settle_turn_end(tokenizer, ()), None).tokenise(samples)
    [prompt] = shorten_prompts([record], samples, texts, limit, tokenizer)
    return prompt


def text_of(prompt: Prompt | None, tokenizer: PreTrainedTokenizerFast) -> str:
    """The tokens as text, which must be the text of the prompt but for a special token that the tokenizer adds."""
    assert prompt is not None
    spelled = str(tokenizer.decode(prompt.ids, clean_up_tokenization_spaces=False))
    assert spelled.removeprefix("<s>") == prompt.text.removeprefix("<s>")
    return spelled


def conversation(*turns: tuple[str, str]) -> Record:
    return Record(tuple(Message(role, content) for role, content in turns), ("yes",))


def counted(prompt: Prompt | None) -> int:
    assert prompt is not None
    return len(prompt.ids)


def test_the_template_s_opening_and_the_system_s_turn_stay_and_the_user_s_words_lose_their_beginning(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    record = conversation(("system", "QQQQQQQQ"), ("user", "zzzzzzzzzzzzzzzzzzyx"))
    whole = shortened(record, tokenizer, 1000)
    cut = shortened(record, tokenizer, counted(whole) - 15)
    expected = "<s><|im_start|>system\nQQQQQQQQ<|im_end|>\n<|im_start|>user\nzzzyx<|im_end|>\n<|im_start|>assistant\n"
    assert text_of(cut, tokenizer) == expected
    assert counted(cut) == counted(whole) - 15


def test_the_longest_turn_is_cut_first_and_others_only_where_that_is_not_enough(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    record = conversation(("user", "zzzzzzzzzz"), ("assistant", "y" * 20), ("user", "xxxxx"))
    length = counted(shortened(record, tokenizer, 1000))

    def contents(fewer: int) -> list[str]:
        text = text_of(shortened(record, tokenizer, length - fewer), tokenizer)
        return [turn.split("\n")[1].removesuffix("<|im_end|>") for turn in text.split("<|im_start|>")[1:-1]]

    assert contents(12) == ["z" * 10, "y" * 8, "x" * 5]
    assert contents(23) == ["z" * 7, "", "x" * 5]
    assert contents(33) == ["", "", "xx"]
    assert contents(34) == ["", "", "x"]


def test_of_turns_of_equal_length_the_first_is_cut_first(tokenizer: PreTrainedTokenizerFast) -> None:
    record = conversation(("user", "zzzzz"), ("assistant", "yes"), ("user", "xxxxx"))
    length = counted(shortened(record, tokenizer, 1000))
    shown = text_of(shortened(record, tokenizer, length - 3), tokenizer)
    assert "user\nzz<|im_end|>" in shown
    assert "user\nxxxxx<|im_end|>" in shown


def test_a_prompt_whose_template_leaves_no_room_for_the_question_cannot_be_shortened(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    record = conversation(("system", "QQQQQQQQ"), ("user", "zzzz"))
    length = counted(shortened(record, tokenizer, 1000))
    assert counted(shortened(record, tokenizer, length - 3)) == length - 3
    assert shortened(record, tokenizer, length - 4) is None


@pytest.mark.parametrize(
    ("task", "gone"), [(Instruction("zzzzzzzzzz", "yyyyy"), "zzzz"), (Instruction("z" * 5, "y" * 10), "yyyy")]
)
def test_the_longer_of_instruction_and_input_is_cut(
    tokenizer: PreTrainedTokenizerFast, task: Instruction, gone: str
) -> None:
    record = Record(task, ("yes",))
    whole = shortened(record, tokenizer, 1000)
    cut = shortened(record, tokenizer, counted(whole) - 4)
    assert text_of(cut, tokenizer) == text_of(whole, tokenizer).replace(gone, "", 1)


def test_a_complete_prompt_loses_its_beginning_but_not_the_token_that_begins_a_sequence(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    record = Record("zzzzzzzzzzyyyxx", ("yes",))
    assert text_of(shortened(record, tokenizer, 5), tokenizer) == "<s>yyxx"
    assert text_of(shortened(record, tokenizer, 2), tokenizer) == "<s>x"
    assert shortened(record, tokenizer, 1) is None


def test_a_complete_prompt_loses_white_space_at_its_beginning_as_any_other_text(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    assert text_of(shortened(Record("\n\nzzzzyy\n", ("yes",)), tokenizer, 5), tokenizer) == "<s>zyy\n"


def test_a_tokenizer_without_such_a_token_keeps_the_last_tokens(byte_tokenizer: Build) -> None:
    tokenizer = byte_tokenizer()
    assert text_of(shortened(Record("zzzzzzzzzzyyyxx", ("yes",)), tokenizer, 4), tokenizer) == "yyxx"


def test_a_character_of_several_tokens_is_cut_as_a_whole(tokenizer: PreTrainedTokenizerFast) -> None:
    record = conversation(("user", "日本語"))  # three tokens each
    length = counted(shortened(record, tokenizer, 1000))
    cut = shortened(record, tokenizer, length - 4)
    assert counted(cut) == length - 6
    assert "user\n語<|im_end|>" in text_of(cut, tokenizer)


@pytest.mark.parametrize("template", [chat_templates.R1, chat_templates.QWEN3])
def test_an_earlier_answer_whose_reasoning_the_template_strips_is_cut_where_it_is_the_longest(
    tokenizer: PreTrainedTokenizerFast, template: str
) -> None:
    tokenizer.chat_template = template
    record = conversation(("user", "zzzz"), ("assistant", "<think>\nQQ\n</think>\n\n" + "y" * 20), ("user", "xxxxx"))
    whole = shortened(record, tokenizer, 1000)
    cut = shortened(record, tokenizer, counted(whole) - 15)
    assert text_of(cut, tokenizer) == text_of(whole, tokenizer).replace("y" * 20, "y" * 5)


def test_a_content_that_is_written_as_json_is_cut_within_its_quotes(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = chat_templates.LLAMA31
    record = conversation(("user", "xx"), ("tool", 'z"' * 10))
    whole = shortened(record, tokenizer, 1000)
    cut = shortened(record, tokenizer, counted(whole) - 15)
    written = 'z\\"' * 10
    assert f'ipython\n\n"{written}"<|im_end|>' in text_of(whole, tokenizer)
    assert f'ipython\n\n"{written[-15:]}"<|im_end|>' in text_of(cut, tokenizer)


def test_a_turn_that_the_template_rewrites_is_cut_from_the_beginning_of_the_prompt(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer.chat_template = CHATML.replace("m['content']", "m['content'] | upper")
    cut = shortened(conversation(("user", "zzzz")), tokenizer, 14)
    assert text_of(cut, tokenizer).startswith("<s>")
    assert text_of(cut, tokenizer).endswith("assistant\n")
    assert counted(cut) == 14


@pytest.mark.parametrize("text", ["user", "assistant"])
def test_a_content_that_the_template_writes_as_well_is_found_in_its_turn(
    tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    record = conversation(("user", f"{text}zzzzzzzz"), ("assistant", "yes"), ("user", text))
    length = counted(shortened(record, tokenizer, 1000))
    shown = text_of(shortened(record, tokenizer, length - 6), tokenizer)
    assert shown.count("<|im_start|>user\n") == 2
    assert shown.endswith(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n")


def test_short_prompts_stay_as_they_are(tokenizer: PreTrainedTokenizerFast) -> None:
    record: Any = conversation(("user", "zzzz"))
    rows: Sequence[Record] = [record]
    samples = render_prompts(rows, "chat", tokenizer, supervise="none")
    prompt = shortened(record, tokenizer, 1000)
    assert prompt is not None
    assert prompt.text == samples[0].prompt
    assert prompt.ids == tokenizer(samples[0].prompt, add_special_tokens=False)["input_ids"]
