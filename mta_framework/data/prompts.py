"""Renders records as prompts and responses: by the Alpaca template, the tokenizer's chat template, or unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from mta_framework.data.rows import Instruction, Message, Record
from mta_framework.errors import MAX_LISTED, Fault, FaultList, InputError, error_message
from mta_framework.spans.template_boundaries import chat_boundaries, fill_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
_ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)


@dataclass(frozen=True)
class Sample:
    """A prompt with its training response and reference answers.

    Args:
        prompt: Text before the response.
        response: Training response; with a chat template up to and including the token that ends the turn.
        references: All acceptable answers, as plain text.
        templated: Whether a chat template wrote the special tokens into the prompt, so that none are added.
        boundaries: Character offsets at which the text is split before spans are extracted, ascending; empty: it is
            parsed as a whole.
    """

    prompt: str
    response: str
    references: tuple[str, ...]
    templated: bool = False
    boundaries: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        """Prompt and response as one text, which the offsets of spans refer to."""
        return self.prompt + self.response


def render(
    records: Sequence[Record],
    template: Literal["alpaca", "chat"],
    tokenizer: PreTrainedTokenizerBase,
    split_fields: bool = False,
    where: str = "data.template",
) -> list[Sample]:
    """Render records as prompts and responses.

    Args:
        records: Rows of a data set.
        template: Template of instruction rows. Conversations always use the tokenizer's chat template, and rows with
            a prompt are taken unchanged.
        tokenizer: Tokenizer of the student.
        split_fields: Whether samples record the boundaries of their fields, so that each field is parsed alone. A
            conversation whose chat template changes contents is split before the response only.
        where: Field of the spec that names the template, for errors.

    Returns:
        One sample per record, in their order.

    Raises:
        InputError: The tokenizer lacks a chat template where one is needed, or its template refuses rows.
    """
    samples: list[Sample] = []
    faults = FaultList(where=where, most=MAX_LISTED)
    for index, record in enumerate(records):
        messages = _messages(record, template)
        if messages is None:
            samples.append(_plain(record, split_fields))
            continue
        if not tokenizer.chat_template:
            raise InputError([_no_template(tokenizer, where)])
        try:
            samples.append(_chat(messages, record.references, tokenizer, split_fields))
        except Exception as error:  # a template is foreign code: it may raise anything
            problem = f"the tokenizer's chat template refuses row {index} ({error_message(error)})"
            hint = "Correct the row, or use another template or tokenizer."
            faults.add(Fault(where, problem, "conversations that the template can render", hint))
    faults.raise_any()
    return samples


def _plain(record: Record, split_fields: bool) -> Sample:
    prompt = record.prompt
    if isinstance(prompt, Instruction):
        template = _ALPACA_WITH_INPUT if prompt.input else _ALPACA
        prompt, boundaries = fill_template(template, instruction=prompt.instruction, input=prompt.input)
    else:
        assert isinstance(prompt, str)
        boundaries = (len(prompt),)
    return Sample(prompt, record.references[0], record.references, boundaries=boundaries if split_fields else ())


def _messages(record: Record, template: str) -> tuple[Message, ...] | None:
    prompt = record.prompt
    if isinstance(prompt, Instruction) and template == "chat":
        task = f"{prompt.instruction}\n\n{prompt.input}" if prompt.input else prompt.instruction
        return (Message("user", task),)
    return prompt if isinstance(prompt, tuple) else None


def _chat(
    messages: Sequence[Message], references: tuple[str, ...], tokenizer: PreTrainedTokenizerBase, split_fields: bool
) -> Sample:
    turns = [*messages, Message("assistant", references[0])]
    prompt, whole = _render_turns(turns[:-1], tokenizer, True), _render_turns(turns, tokenizer)
    if not whole.startswith(prompt):
        raise ValueError("the conversation with the answer does not begin with the prompt for it")
    response = whole[len(prompt) :]
    ended = response.rstrip()
    sample = Sample(prompt, ended if _ends_turn(ended, tokenizer) else response, references, templated=True)
    return replace(sample, boundaries=_chat_boundaries(sample, turns, tokenizer)) if split_fields else sample


def _chat_boundaries(sample: Sample, turns: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    def render_contents(contents: Sequence[str]) -> str:
        replaced = [Message(turn.role, content) for turn, content in zip(turns, contents, strict=True)]
        return _render_turns(replaced, tokenizer)

    boundaries = chat_boundaries(sample.text, [turn.content for turn in turns], render_contents)
    return tuple(sorted({len(sample.prompt), *boundaries}))


def _render_turns(turns: Sequence[Message], tokenizer: PreTrainedTokenizerBase, prompt: bool = False) -> str:
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    assert isinstance(text, str)
    return text


def _ends_turn(response: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return response.endswith(tuple({*added, *tokenizer.all_special_tokens}))


def _no_template(tokenizer: PreTrainedTokenizerBase, where: str) -> Fault:
    problem = f"the tokenizer has no chat template (got {tokenizer.name_or_path or type(tokenizer).__name__})"
    hint = f"Set {where} to 'alpaca' and use instruction or prompt rows, or take another tokenizer."
    return Fault(where, problem, "a tokenizer with a chat template", hint)
