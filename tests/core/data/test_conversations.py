"""Conversations: every field of a message is written or refused by name, and every answer may be supervised."""

from __future__ import annotations

import json
from collections.abc import Callable

import chat_templates
import numpy as np
import pytest
from sides import sides
from transformers import AddedToken, PreTrainedTokenizerFast
from turns import ANSWER, TOOLS, USER, call, turn

from mta_framework.data.prompts import Sample
from mta_framework.data.tokens import encode
from mta_framework.errors import InputError

Rendered = Callable[..., list[Sample]]


@pytest.mark.parametrize("arguments", [{"city": "Oslo"}, '{"city": "Oslo"}'])
def test_calls_tools_and_their_results_are_written(rendered: Rendered, arguments: object) -> None:
    row = {
        "messages": [
            turn("user", "weather in Oslo?"),
            call(arguments),
            turn("tool", "7 degrees"),
            turn("assistant", "7."),
        ],
        "tools": TOOLS,
    }
    (sample,) = rendered(chat_templates.QWEN3, row)
    assert sample.prompt == (
        '<|im_start|>system\n# Tools\n{"type": "function", "function": {"name": "weather"}}<|im_end|>\n'
        "<|im_start|>user\nweather in Oslo?<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
        "<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n7 degrees\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    assert sample.response == "7.<|im_end|>"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (chat_templates.QWEN3, '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'),
        (chat_templates.LLAMA31, '{"name": "weather", "parameters": {"city": "Oslo"}}'),
        (chat_templates.TEXT_ARGUMENTS, '<tool_call>weather\n```json\n{"city": "Oslo"}\n```'),
    ],
)
def test_a_last_turn_that_calls_is_trained_and_is_the_reference(rendered: Rendered, template: str, text: str) -> None:
    row = {"messages": [turn("user", "weather in Oslo?"), call({"city": "Oslo"})]}
    (sample,) = rendered(template, row)
    (asked,) = rendered(template, row, supervise="none")
    assert sample.response == f"{text}<|im_end|>"
    assert asked.references == (text,)
    assert asked.prompt == sample.prompt


def test_tools_may_be_a_text_of_json(rendered: Rendered) -> None:
    rows = [
        {"messages": [turn("user", "a"), turn("assistant", "b")], "tools": tools}
        for tools in (TOOLS, json.dumps(TOOLS))
    ]
    first, second = rendered(chat_templates.QWEN3, *rows)
    assert first == second
    assert '"weather"' in first.prompt


def test_fields_that_are_null_or_empty_say_nothing(rendered: Rendered) -> None:
    plain = {"messages": [turn("user", "a"), turn("assistant", "b")]}
    filled = {
        "messages": [turn("user", "a", name=None, tool_calls=None), turn("assistant", "b", tool_calls=[], refusal="")],
        "tools": [],
    }
    assert len(set(rendered(chat_templates.LLAMA31, plain, filled))) == 1


def test_parts_of_type_text_are_joined(rendered: Rendered) -> None:
    parts = [{"type": "text", "text": "capital of "}, {"type": "text", "text": "France"}]
    (sample,) = rendered(chat_templates.CHATML, {"messages": [turn("user", parts), turn("assistant", "Paris")]})
    assert sample.prompt == "<|im_start|>user\ncapital of France<|im_end|>\n<|im_start|>assistant\n"


def supervised_text(tokenizer: PreTrainedTokenizerFast, sample: Sample, max_length: int = 400) -> list[str]:
    """The runs of supervised tokens as text."""
    (example,) = encode([sample], None, sides(max_length, tokenizer), max_length - 1).examples
    mask = np.arange(len(example.input_ids)) >= example.prompt_length
    mask &= True if example.supervised_T is None else example.supervised_T
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    runs = [example.input_ids[start:end].tolist() for start, end in edges.reshape(-1, 2)]
    return [tokenizer.decode(run, clean_up_tokenization_spaces=False) for run in runs]


CHAT = {
    "messages": [
        turn("system", "Be brief."),
        turn("user", "the lamp"),
        turn("assistant", "the keeper"),
        turn("user", "and?"),
        turn("assistant", "repair"),
        turn("user", "and?"),
        turn("assistant", "the end"),
    ]
}


@pytest.mark.parametrize("template", ["CHATML", "QWEN3", "LLAMA31"])
def test_all_answers_are_supervised_up_to_the_end_of_their_turns_and_nothing_else(
    rendered: Rendered, chat_tokenizer: PreTrainedTokenizerFast, template: str
) -> None:
    chat_tokenizer.eos_token = "<|im_end|>"
    (sample,) = rendered(getattr(chat_templates, template), CHAT, supervise="all")
    answers = [f"{answer}<|im_end|>" for answer in ("the keeper", "repair", "the end")]
    assert [sample.text[start:end] for start, end in sample.supervised] == answers
    assert supervised_text(chat_tokenizer, sample) == answers
    assert sample.text.startswith(sample.prompt)
    assert sample.prompt.endswith("assistant\n") or sample.prompt.endswith("assistant\n\n")


def test_a_token_that_ends_the_conversation_belongs_to_no_answer(
    rendered: Rendered, chat_tokenizer: PreTrainedTokenizerFast
) -> None:
    template = chat_templates.CHATML + "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"  # Phi-3
    (sample,) = rendered(template, CHAT, supervise="all")
    answers = [f"{answer}<|im_end|>" for answer in ("the keeper", "repair", "the end")]
    assert supervised_text(chat_tokenizer, sample) == answers


def test_a_field_that_is_false_is_written_where_the_template_reads_it(rendered: Rendered) -> None:
    template = chat_templates.CHATML.replace("{{ m.content }}", "{{ m.content }}{% if m.sure %}!{% endif %}")
    (sample,) = rendered(template, {"messages": [turn("user", "a", sure=False), ANSWER]})
    assert sample.prompt == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("left", [False, True])
def test_an_end_that_takes_the_white_space_behind_it_is_supervised(
    rendered: Rendered, chat_tokenizer: PreTrainedTokenizerFast, left: bool
) -> None:
    end = AddedToken("<|end|>", lstrip=left, rstrip=True, special=True, normalized=False)
    chat_tokenizer.add_special_tokens({"additional_special_tokens": [end]})
    (sample,) = rendered(chat_templates.CHATML.replace("<|im_end|>", "<|end|>"), CHAT, supervise="all")
    answers = [f"{answer}<|end|>" for answer in ("the keeper", "repair", "the end")]
    assert supervised_text(chat_tokenizer, sample) == answers


def test_an_end_that_is_no_special_token_ends_turns_and_other_added_tokens_are_text(
    rendered: Rendered, chat_tokenizer: PreTrainedTokenizerFast
) -> None:
    chat_tokenizer.add_tokens(["<|end|>", "<tool_call>", "</tool_call>"])
    (sample,) = rendered(chat_templates.CHATML.replace("<|im_end|>", "<|end|>"), CHAT, supervise="all")
    answers = [f"{answer}<|end|>" for answer in ("the keeper", "repair", "the end")]
    assert supervised_text(chat_tokenizer, sample) == answers
    row = {"messages": [USER, call({"city": "Oslo"})]}
    (asked,) = rendered(chat_templates.QWEN3.replace("<|im_end|>", "<|end|>"), row, supervise="none")
    text = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    assert asked.references == (text,)


def test_the_text_is_the_same_whichever_turns_are_supervised(rendered: Rendered) -> None:
    (last,), (both,) = (rendered(chat_templates.QWEN3, CHAT, supervise=supervise) for supervise in ("last", "all"))
    assert last.text == both.text
    assert last.supervised == ()


def test_one_answer_is_supervised_as_ever(rendered: Rendered) -> None:
    row = {"messages": [USER, ANSWER]}
    assert rendered(chat_templates.QWEN3, row, supervise="all") == rendered(chat_templates.QWEN3, row)


def test_white_space_before_earlier_answers_is_supervised_like_that_before_the_last(
    rendered: Rendered, chat_tokenizer: PreTrainedTokenizerFast
) -> None:
    chat_tokenizer.eos_token = "<|im_end|>"
    row = {"messages": CHAT["messages"][1:]}
    (sample,) = rendered(chat_templates.LLAMA2, row, supervise="all")
    assert supervised_text(chat_tokenizer, sample) == [
        " the keeper <|im_end|>",
        " repair <|im_end|>",
        " the end <|im_end|>",
    ]


def test_no_token_reaches_from_the_template_into_an_answer(
    rendered: Rendered, chat_tokenizer: PreTrainedTokenizerFast
) -> None:
    chat_tokenizer.eos_token = "<|im_end|>"
    template = "{% for m in messages %}{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}"
    template += "{% if add_generation_prompt %}assistant {% endif %}"
    (sample,) = rendered(template, CHAT, supervise="all")
    joined = chat_tokenizer.tokenize(sample.text)
    assert "Ġthe" in joined  # which would reach from the template into an answer
    answers = ["the keeper<|im_end|>", "repair<|im_end|>", "the end<|im_end|>"]
    assert supervised_text(chat_tokenizer, sample) == answers
    (example,) = encode([sample], None, sides(400, chat_tokenizer), 399).examples
    assert chat_tokenizer.decode(example.input_ids.tolist(), clean_up_tokenization_spaces=False) == sample.text


def test_calls_are_answers(rendered: Rendered, chat_tokenizer: PreTrainedTokenizerFast) -> None:
    chat_tokenizer.eos_token = "<|im_end|>"
    row = {"messages": [USER, call({"city": "Oslo"}), turn("tool", "7"), ANSWER]}
    (sample,) = rendered(chat_templates.QWEN3, row, supervise="all")
    assert supervised_text(chat_tokenizer, sample) == [
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>',
        "b<|im_end|>",
    ]


def test_a_last_call_may_end_with_another_token_than_answers(
    rendered: Rendered, chat_tokenizer: PreTrainedTokenizerFast
) -> None:
    template = chat_templates.LLAMA31.replace("+ '}<|im_end|>'", "+ '}<|end|>'")
    row = {"messages": [USER, ANSWER, USER, call({"city": "Oslo"})]}
    (sample,) = rendered(template, row, supervise="all")
    texts = supervised_text(chat_tokenizer, sample)
    assert texts == ["b<|im_end|>", '{"name": "weather", "parameters": {"city": "Oslo"}}<|end|>']


def test_an_answer_that_the_template_rewrites_once_others_follow_is_refused(rendered: Rendered) -> None:
    earlier = turn("assistant", "b", reasoning_content="c")
    with pytest.raises(InputError, match=r"rows\.jsonl:1 \(.*messages\[1\] is written in another way"):
        rendered(chat_templates.QWEN3, {"messages": [USER, earlier, USER, ANSWER]}, supervise="all")


def test_a_conversation_that_is_cut_is_supervised_up_to_there(
    rendered: Rendered, chat_tokenizer: PreTrainedTokenizerFast
) -> None:
    (sample,) = rendered(chat_templates.CHATML, CHAT, supervise="all")
    whole = supervised_text(chat_tokenizer, sample)
    (first, *_) = encode([sample], None, sides(400, chat_tokenizer), 399).examples
    cut = supervised_text(chat_tokenizer, sample, first.prompt_length + 3)
    assert len(cut) == 1
    assert whole[0].startswith(cut[0])


MARKED = """\
{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}
    {%- if m.role == 'assistant' %}{% generation %}{{- m.content + '<|im_end|>' }}{% endgeneration %}
    {%- else %}{{- m.content + '<|im_end|>' }}{%- endif %}{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""


def test_supervised_tokens_are_those_between_the_generation_marks_of_a_template(
    rendered: Rendered, chat_tokenizer: PreTrainedTokenizerFast
) -> None:
    chat_tokenizer.eos_token = "<|im_end|>"
    (sample,) = rendered(MARKED, CHAT, supervise="all")
    (example,) = encode([sample], None, sides(400, chat_tokenizer), 399).examples
    marked = chat_tokenizer.apply_chat_template(CHAT["messages"], return_dict=True, return_assistant_tokens_mask=True)
    length = len(example.input_ids)  # the line break after the last turn is not trained
    assert example.input_ids.tolist() == marked["input_ids"][:length]
    assert example.supervised_T is not None
    supervised_T = example.supervised_T & (np.arange(length) >= example.prompt_length)
    assert supervised_T.tolist() == [bool(mark) for mark in marked["assistant_masks"][:length]]
    assert sum(marked["assistant_masks"][length:]) == 0
