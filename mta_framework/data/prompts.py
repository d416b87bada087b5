"""Makes prompts and responses of records: the Alpaca prompt, the tokenizer's chat template, or the text as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from mta_framework.data.faults import FaultList
from mta_framework.data.rows import Instruction, Message, Record
from mta_framework.errors import Fault, InputError
from mta_framework.spans.template_boundaries import field_cuts, filled

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
    """What a model reads and what it should answer.

    Args:
        prompt: Text before the response.
        response: Training response; with a chat template up to and including the token that ends the turn.
        references: All acceptable answers, as plain text.
        templated: Whether a chat template wrote the special tokens into the prompt, so that none are to be added.
        cuts: Where the text is cut before it is parsed: ascending character offsets; none: it is parsed as a whole.
    """

    prompt: str
    response: str
    references: tuple[str, ...]
    templated: bool = False
    cuts: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        """The whole text, which spans are offsets into."""
        return self.prompt + self.response


def render(
    records: Sequence[Record],
    template: Literal["alpaca", "chat"],
    tokenizer: PreTrainedTokenizerBase,
    cut: bool = False,
    where: str = "data.template",
) -> list[Sample]:
    """Write prompts and responses.

    Args:
        records: Rows of a data set.
        template: How instruction rows become prompts. Conversations always use the tokenizer's chat template, and rows
            that hold a prompt are taken as they are.
        tokenizer: The student's.
        cut: Whether texts are cut where fields begin and end. A conversation whose template does more with contents
            than to write them down is only cut before the response.
        where: Where the spec names the template.

    Returns:
        One sample per record, in their order.

    Raises:
        InputError: The tokenizer lacks a chat template where one is needed, or its template refuses rows.
    """
    samples: list[Sample] = []
    faults = FaultList(where)
    for number, record in enumerate(records):
        messages = _messages(record, template)
        if messages is None:
            samples.append(_plain(record, cut))
            continue
        if not tokenizer.chat_template:
            raise InputError([_no_template(tokenizer, where)])
        try:
            samples.append(_chat(messages, record.references, tokenizer, cut))
        except Exception as error:  # a template is foreign code: it may raise anything
            problem = f"the tokenizer's chat template refuses row {number} ({error})"
            hint = "Mend the row, or use another template or tokenizer."
            faults.add(Fault(where, problem, "conversations that the template can write are allowed", hint))
    faults.raise_any()
    return samples


def _plain(record: Record, cut: bool) -> Sample:
    prompt = record.prompt
    if isinstance(prompt, Instruction):
        form = _ALPACA_WITH_INPUT if prompt.input else _ALPACA
        prompt, cuts = filled(form, instruction=prompt.instruction, input=prompt.input)
    else:
        assert isinstance(prompt, str)
        cuts = (len(prompt),)
    return Sample(prompt, record.references[0], record.references, cuts=cuts if cut else ())


def _messages(record: Record, template: str) -> tuple[Message, ...] | None:
    prompt = record.prompt
    if isinstance(prompt, Instruction) and template == "chat":
        task = f"{prompt.instruction}\n\n{prompt.input}" if prompt.input else prompt.instruction
        return (Message("user", task),)
    return prompt if isinstance(prompt, tuple) else None


def _chat(
    messages: Sequence[Message], references: tuple[str, ...], tokenizer: PreTrainedTokenizerBase, cut: bool
) -> Sample:
    turns = [*messages, Message("assistant", references[0])]
    prompt, whole = _written(turns[:-1], tokenizer, True), _written(turns, tokenizer)
    if not whole.startswith(prompt):
        raise ValueError("the conversation with the answer does not begin with the prompt for it")
    response = whole[len(prompt) :]
    ended = response.rstrip()
    sample = Sample(prompt, ended if _ends_turn(ended, tokenizer) else response, references, templated=True)
    return replace(sample, cuts=_chat_cuts(sample, turns, tokenizer)) if cut else sample


def _chat_cuts(sample: Sample, turns: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    def written(contents: Sequence[str]) -> str:
        return _written([Message(turn.role, content) for turn, content in zip(turns, contents, strict=True)], tokenizer)

    return tuple(sorted({len(sample.prompt), *field_cuts(sample.text, [turn.content for turn in turns], written)}))


def _written(turns: Sequence[Message], tokenizer: PreTrainedTokenizerBase, prompt: bool = False) -> str:
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
    return Fault(where, problem, "conversations need a tokenizer with a chat template", hint)
