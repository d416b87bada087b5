"""What a chat template writes before an answer: part of the prompt, in training as in generation."""

from __future__ import annotations

from typing import Literal

import chat_templates
import pytest
from sides import sides
from transformers import PreTrainedTokenizerFast

from mta_framework.data.prompts import Sample, render_prompts, training_samples
from mta_framework.data.rows import Message, Record
from mta_framework.data.tokens import encode
from mta_framework.errors import InputError
from mta_framework.spec.data import DataSection

QUESTION = (Message("user", "capital of France"),)
ASKED = "<|im_start|>user\ncapital of France<|im_end|>\n<|im_start|>assistant\n"
EMPTY = "<think>\n\n</think>\n\n"


def both(tokenizer: PreTrainedTokenizerFast, template: str, record: Record, **options: object) -> tuple[Sample, str]:
    """The training sample, and the prompt in generation."""
    tokenizer.chat_template = template
    (sample,) = render_prompts([record], "chat", tokenizer, options=options)
    (asked,) = render_prompts([record], "chat", tokenizer, options=options, supervise="none")
    return sample, asked.prompt


def test_an_empty_reasoning_block_belongs_to_the_prompt(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    sample, prompt = both(chat_tokenizer, chat_templates.QWEN3, Record(QUESTION, ("Paris",)))
    assert sample.prompt == prompt == ASKED + EMPTY
    assert sample.response == "Paris<|im_end|>"


def test_a_generation_prompt_that_has_the_block_is_taken_as_it_is(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    record = Record(QUESTION, ("Paris",))
    sample, prompt = both(chat_tokenizer, chat_templates.QWEN3, record, enable_thinking=False)
    assert (sample.prompt, sample.response, prompt) == (ASKED + EMPTY, "Paris<|im_end|>", ASKED + EMPTY)


@pytest.mark.parametrize(
    "answer", [Message("assistant", "Paris", {"reasoning_content": "Well."}), "<think>\nWell.\n</think>\n\nParis"]
)
def test_the_reasoning_of_an_answer_is_part_of_it(
    chat_tokenizer: PreTrainedTokenizerFast, answer: Message | str
) -> None:
    record = Record(QUESTION, (answer,)) if isinstance(answer, str) else Record(QUESTION, ("Paris",), answer)
    sample, prompt = both(chat_tokenizer, chat_templates.QWEN3, record)
    assert sample.prompt == prompt == ASKED
    assert sample.response == "<think>\nWell.\n</think>\n\nParis<|im_end|>"


def test_a_model_that_is_asked_to_reason_is_not_given_an_empty_block(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    _, prompt = both(chat_tokenizer, chat_templates.QWEN3, Record(QUESTION, ("Paris",)), enable_thinking=True)
    assert prompt == ASKED


def test_an_answer_without_reasoning_has_the_prompt_of_a_whole_conversation_where_generation_begins_a_block(
    chat_tokenizer: PreTrainedTokenizerFast,
) -> None:
    sample, prompt = both(chat_tokenizer, chat_templates.R1, Record(QUESTION, ("Paris",)))
    assert (sample.prompt, sample.response) == ("<s><|User|>capital of France<|Assistant|>", "Paris<|im_end|>")
    assert prompt == "<s><|User|>capital of France<|Assistant|><think>\n"


@pytest.mark.parametrize(
    "record",
    [
        Record(QUESTION, ("Paris",), Message("assistant", "Paris", {"reasoning_content": "Well."})),
        Record(QUESTION, ("<think>\nWell.\n</think>\n\nParis",)),
        Record(QUESTION, ("Well.\n</think>\n\nParis",)),
    ],
)
def test_reasoning_fills_the_block_that_the_generation_prompt_begins(
    chat_tokenizer: PreTrainedTokenizerFast, record: Record
) -> None:
    sample, prompt = both(chat_tokenizer, chat_templates.R1, record)
    assert sample.prompt == prompt == "<s><|User|>capital of France<|Assistant|><think>\n"
    assert sample.response == "Well.\n</think>\n\nParis<|im_end|>"


def test_a_closed_block_of_the_generation_prompt_alone_stays_in_the_prompt(
    chat_tokenizer: PreTrainedTokenizerFast,
) -> None:
    template = chat_templates.CHATML.replace("assistant\n{%", f"assistant\n{EMPTY}{{%")
    sample, prompt = both(chat_tokenizer, template, Record(QUESTION, ("Paris",)))
    assert (sample.prompt, sample.response) == (prompt, "Paris<|im_end|>")
    assert prompt == ASKED + EMPTY


def test_the_header_of_a_template_without_generation_prompt_belongs_to_the_prompt(
    chat_tokenizer: PreTrainedTokenizerFast,
) -> None:
    template = chat_templates.CHATML.partition("{% if")[0]
    sample, prompt = both(chat_tokenizer, template, Record(QUESTION, ("Paris",)))
    assert sample.prompt == prompt == ASKED
    assert sample.response == "Paris<|im_end|>"


def test_white_space_before_an_answer_stays_with_it(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    sample, prompt = both(chat_tokenizer, chat_templates.LLAMA2, Record(QUESTION, ("Paris",)))
    assert sample.prompt == prompt == "<s>[INST] capital of France [/INST]"
    assert sample.response == " Paris <|im_end|>"


def test_an_answer_without_reasoning_has_the_empty_block_of_a_template_whose_generation_prompt_begins_one(
    chat_tokenizer: PreTrainedTokenizerFast,
) -> None:
    sample, prompt = both(chat_tokenizer, chat_templates.EMPTY_BLOCK, Record(QUESTION, ("Paris",)))
    assert (sample.prompt, sample.response) == (f"{ASKED}<think></think>", "Paris<|im_end|>")
    assert prompt == f"{ASKED}<think>\n"
    assert not sample.as_asked
    reasoned = Record(QUESTION, ("<think>\nWell.\n</think>\n\nParis",))
    sample, prompt = both(chat_tokenizer, chat_templates.EMPTY_BLOCK, reasoned)
    assert (sample.prompt, sample.response) == (f"{ASKED}<think>\n", "Well.\n</think>\n\nParis<|im_end|>")
    assert prompt == sample.prompt


def test_reasoning_after_a_prompt_that_leaves_no_room_for_it_is_refused_by_what_is_wrong(
    chat_tokenizer: PreTrainedTokenizerFast,
) -> None:
    record = Record(QUESTION, ("<think>\nWell.\n</think>\n\nParis",))
    problem = "the answer has reasoning, and the prompt for it ends with a block that is closed"
    closed = chat_templates.CHATML.replace("assistant\n{%", f"assistant\n{EMPTY}{{%")
    for template, options in [(chat_templates.QWEN3, {"enable_thinking": False}), (closed, {})]:
        chat_tokenizer.chat_template = template
        with pytest.raises(InputError, match=problem):
            render_prompts([record], "chat", chat_tokenizer, options=options)


@pytest.mark.parametrize("eos", ["<|im_end|>", "<|end|>"])
@pytest.mark.parametrize("supervise", ["last", "all"])
def test_an_end_that_is_written_after_the_conversation_as_well_is_trained_once(
    chat_tokenizer: PreTrainedTokenizerFast, eos: str, supervise: Literal["last", "all"]
) -> None:
    chat_tokenizer.chat_template, chat_tokenizer.eos_token = chat_templates.PHI3, eos
    turns = (*QUESTION, Message("assistant", "Paris"), Message("user", "and?"))
    (sample,) = render_prompts([Record(turns, ("It is <|im_end|>.",))], "chat", chat_tokenizer, supervise=supervise)
    (example,) = encode([sample], None, sides(400, chat_tokenizer), 399).examples
    assert chat_tokenizer.decode(example.input_ids).endswith("<|assistant|>\nIt is <|im_end|>.<|im_end|>")
    assert chat_tokenizer.decode(example.input_ids).count("<|im_end|>") == 5


def test_calls_and_reasoning_are_asked_after_a_header_that_leaves_them_open(
    chat_tokenizer: PreTrainedTokenizerFast,
) -> None:
    calls = {"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}
    opened = "<|im_start|>user<|im_sep|>capital of France<|im_end|><|im_start|>assistant"
    for answer, header, response in [
        (None, "<|final|>", "Paris<|im_end|>"),
        (Message("assistant", None, calls), "", ' to=f<|im_sep|>{"a": 1}<|im_end|>'),
        (
            Message("assistant", "Paris", {"reasoning_content": "Well."}),
            "",
            "<|analysis|>Well.<|im_start|>assistant<|final|>Paris<|im_end|>",
        ),
    ]:
        sample, prompt = both(chat_tokenizer, chat_templates.CHANNELS, Record(QUESTION, ("Paris",), answer))
        assert sample.prompt == prompt == opened + header
        assert sample.response == response


@pytest.mark.parametrize(("template", "count"), [(chat_templates.R1, 1), (chat_templates.CHATML, 0)])
def test_answers_that_are_trained_after_another_prompt_than_that_of_an_evaluation_are_counted(
    chat_tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture, template: str, count: int
) -> None:
    chat_tokenizer.chat_template = template
    records = [Record(QUESTION, ("<think>\nWell.\n</think>\n\nParis",)), Record(QUESTION, ("Paris",))]
    section = DataSection.model_validate({"train": {"path": "none"}, "template": "chat"})
    samples = training_samples(records, section, chat_tokenizer)
    assert sum(not sample.as_asked for sample in samples) == count
    assert ("data.template: 1 of 2 answers have no reasoning" in caplog.text) == bool(count)


def test_a_prompt_for_generation_needs_no_reference_that_renders(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    refusal = "{% if messages[-1].content == 'Paris' %}{{ raise_exception('no') }}{% endif %}"
    chat_tokenizer.chat_template = refusal + chat_templates.CHATML
    (sample,) = render_prompts([Record(QUESTION, ("Paris",))], "chat", chat_tokenizer, supervise="none")
    assert (sample.prompt, sample.references) == (ASKED, ("Paris",))


def test_options_are_variables_of_the_template(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    record = Record(QUESTION, ("Paris",))
    sample, prompt = both(chat_tokenizer, chat_templates.LLAMA31, record, date_string="1 Jan 2030")
    assert "Today Date: 1 Jan 2030\n" in sample.prompt
    assert sample.prompt == prompt
    assert "Today Date: 26 Jul 2024\n" in both(chat_tokenizer, chat_templates.LLAMA31, record)[1]


def test_an_option_that_the_template_does_not_read_is_refused(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    chat_tokenizer.chat_template = chat_templates.QWEN3
    with pytest.raises(InputError) as caught:
        render_prompts([Record(QUESTION, ("Paris",))], "chat", chat_tokenizer, options={"enable_thinkin": False})
    assert str(caught.value) == (
        "data.template_options.enable_thinkin: is no variable of the tokenizer's chat template (got False); "
        "expected a variable that the template reads. Did you mean 'enable_thinking'?"
    )
