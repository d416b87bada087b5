"""Prompts: the Alpaca prompt to the letter, chat templates, and templates that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from mta_framework.data.prompts import Sample, render_prompts
from mta_framework.data.rows import Instruction, Message, Record
from mta_framework.errors import InputError

GOLDEN = Path(__file__).parents[2] / "golden" / "spans_en.json"


def test_the_alpaca_prompt_without_input_is_that_of_the_golden_text(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    answer = "The Rhine, the Elbe and the Danube flow through Germany."
    record = Record(Instruction("Name three rivers that flow through Germany."), (answer,))
    (sample,) = render_prompts([record], "alpaca", chat_tokenizer)
    assert sample.text == json.loads(GOLDEN.read_text(encoding="utf-8"))["cases"][2]["text"]
    assert sample.response == answer
    assert not sample.templated


def test_the_alpaca_prompt_with_input_keeps_braces(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    (sample,) = render_prompts([Record(Instruction("Mend {x}.", "{input}"), ("", "b"))], "alpaca", chat_tokenizer)
    assert sample == Sample(
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nMend {x}.\n\n### Input:\n{input}\n\n"
        "### Response:\n",
        "",
        ("", "b"),
    )


def test_ready_prompts_stay_as_they_are_under_every_template(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    for template in ("alpaca", "chat"):
        (sample,) = render_prompts([Record("Q: {1}\n", (" a\n",))], template, chat_tokenizer)
        assert sample == Sample("Q: {1}\n", " a\n", (" a\n",))


def test_a_conversation_ends_with_the_token_that_ends_the_turn(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    record = Record((Message("system", "Be brief."), Message("user", "Hi")), ("Hello\n",))
    (sample,) = render_prompts([record], "alpaca", chat_tokenizer)
    assert sample == Sample(
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        "Hello\n<|im_end|>",
        ("Hello\n",),
        templated=True,
    )


def test_instructions_become_user_turns_under_the_chat_template(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    (sample,) = render_prompts([Record(Instruction("Add.", "1 1"), ("2", "two"))], "chat", chat_tokenizer)
    assert sample.prompt == "<|im_start|>user\nAdd.\n\n1 1<|im_end|>\n<|im_start|>assistant\n"
    assert (sample.response, sample.references) == ("2<|im_end|>", ("2", "two"))


def test_a_response_whose_template_ends_no_turn_keeps_its_white_space(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    chat_tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    (sample,) = render_prompts([Record((Message("user", "Hi "),), ("Hello \n",))], "chat", chat_tokenizer)
    assert (sample.prompt, sample.response) == ("Hi ", "Hello \n")


def test_a_missing_chat_template_is_an_input_error(byte_tokenizer: Callable[..., PreTrainedTokenizerFast]) -> None:
    tokenizer = byte_tokenizer()
    render_prompts([Record(Instruction("Add."), ("2",))], "alpaca", tokenizer)
    for record, template in [
        (Record(Instruction("Add."), ("2",)), "chat"),
        (Record((Message("user", "a"),), ("b",)), "alpaca"),
    ]:
        with pytest.raises(InputError, match=r"data\.template: the tokenizer has no chat template"):
            render_prompts([record], template, tokenizer)


def test_a_template_that_changes_the_prompt_once_the_answer_is_there_is_refused(
    chat_tokenizer: PreTrainedTokenizerFast,
) -> None:
    chat_tokenizer.chat_template = "{{ messages | length }}{{ messages[-1]['content'] }}"
    with pytest.raises(InputError, match="does not begin with the prompt"):
        render_prompts([Record(Instruction("Add."), ("2",))], "chat", chat_tokenizer)


def test_every_row_that_the_template_refuses_is_reported(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    chat_tokenizer.chat_template = refusal + (chat_tokenizer.chat_template or "")
    good = Record((Message("user", "a"),), ("b",))
    bad = Record((Message("system", "a"), Message("user", "a")), ("b",))
    with pytest.raises(InputError) as caught:
        render_prompts([bad, good, bad], "chat", chat_tokenizer)
    assert [fault.problem for fault in caught.value.faults] == [
        f"the tokenizer's chat template refuses row {row} (no system role)" for row in (0, 2)
    ]
