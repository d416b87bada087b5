"""Renders records as prompts and responses: by the Alpaca template, the tokenizer's chat template, or unchanged."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from mta_framework.data.chat_template import ChatTemplate, Conversation, Written
from mta_framework.data.message_fields import FieldCheck
from mta_framework.data.rows import ANSWERS, CALLS, Instruction, Message, Record
from mta_framework.errors import MAX_LISTED, Fault, FaultList, InputError, error_message, nearest
from mta_framework.models.turn_end import chat_end_text
from mta_framework.spans.template_boundaries import chat_boundaries, fill_template
from mta_framework.spec.data import DataSection
from mta_framework.types import Span

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
        supervised: Character ranges of the text that are supervised, ascending; empty: the whole response.
        as_asked: Whether a model is asked with the same prompt in generation.
        add_special_tokens: Whether the tokens that begin a sequence are added to the prompt, unless it is templated.
    """

    prompt: str
    response: str
    references: tuple[str, ...]
    templated: bool = False
    boundaries: tuple[int, ...] = ()
    supervised: tuple[tuple[int, int], ...] = ()
    as_asked: bool = True
    add_special_tokens: bool = True

    @property
    def text(self) -> str:
        """Prompt and response as one text, which the offsets of spans refer to."""
        return self.prompt + self.response


def render_prompts(
    records: Sequence[Record],
    template: Literal["alpaca", "chat"],
    tokenizer: PreTrainedTokenizerBase,
    split_fields: bool = False,
    where: str = "data.template",
    options: Mapping[str, Any] | None = None,
    supervise: Literal["last", "all", "none"] = "last",
    add_special_tokens: bool = True,
) -> list[Sample]:
    """Render records as prompts and responses.

    Args:
        records: Rows of a data set.
        template: Template of instruction rows. Conversations always use the tokenizer's chat template, and rows with
            a prompt are taken unchanged.
        tokenizer: Tokenizer of the student.
        split_fields: Whether samples record the boundaries of their fields, so that each field is parsed alone. A
            conversation whose chat template changes contents is split before the response only.
        where: Field of the spec that names the template, for errors; ``where`` with ``_options`` names its options.
        options: Variables of the chat template by name; None: none.
        supervise: The turns of a conversation that are trained: the last, or all of the assistant; ``none`` writes
            prompts for generation, and has no response in a conversation.
        add_special_tokens: Whether the tokens that begin a sequence are added to prompts that no chat template writes.

    Returns:
        One sample per record, in their order.

    Raises:
        InputError: The tokenizer lacks a chat template where one is needed, or its template refuses rows, leaves
            something of them out, or reads no variable of an option's name.
    """
    samples: list[Sample] = []
    faults = FaultList(_option_faults(tokenizer, options or {}, where), where=where, most=MAX_LISTED)
    writer = _ChatWriter(tokenizer, options or {}, split_fields, supervise)
    for index, record in enumerate(records):
        messages = _messages(record, template)
        if messages is None:
            samples.append(_plain(record, split_fields, add_special_tokens))
            continue
        if not tokenizer.chat_template:
            raise InputError([_no_template(tokenizer, where)])
        try:
            sample, left_out = writer.write(messages, record)
        except TimeoutError as error:  # the other rows would take as long
            problem = f"the tokenizer's chat template does not end ({error} on {record.where or f'row {index}'})"
            hint = "Use another template or tokenizer."
            raise InputError([Fault(where, problem, "a template without endless loops", hint)]) from error
        except Exception as error:  # a template is foreign code: it may raise anything
            row = record.where or f"row {index}"
            problem = f"the tokenizer's chat template refuses {row} ({error_message(error)}{_unusual(record)})"
            hint = "Correct the row, or use another template or tokenizer."
            faults.add(Fault(where, problem, "conversations that the template can render", hint))
            continue
        samples.append(sample)
        for problem in left_out:
            hint = "Leave it out of the rows, or use a model whose chat template has it."
            faults.add(Fault(record.where or f"row {index}", problem, "only what the template writes", hint))
    faults.raise_any()
    return samples


_log = logging.getLogger(__name__)
_ASKED_OTHERWISE = (
    "answers have no reasoning, and are trained after another prompt than that of an evaluation, which begins or "
    "allows it. Give them reasoning_content, or take another chat template or other template_options."
)


def training_samples(
    records: Sequence[Record], section: DataSection, tokenizer: PreTrainedTokenizerBase
) -> list[Sample]:
    """Render rows as the section ``data`` of a spec says; see ``render_prompts``.

    A warning says how many are trained after another prompt than that of an evaluation.
    """
    samples = render_prompts(
        records,
        section.template,
        tokenizer,
        split_fields=section.parse == "fields",
        options=section.template_options,
        supervise=section.supervise,
        add_special_tokens=section.add_special_tokens,
    )
    if asked_otherwise := sum(not sample.as_asked for sample in samples):
        _log.warning("data.template: %d of %d %s", asked_otherwise, len(samples), _ASKED_OTHERWISE)
    return samples


def _plain(record: Record, split_fields: bool, add_special_tokens: bool) -> Sample:
    prompt = record.prompt
    if isinstance(prompt, Instruction):
        template = _ALPACA_WITH_INPUT if prompt.input else _ALPACA
        prompt, boundaries = fill_template(template, instruction=prompt.instruction, input=prompt.input)
    else:
        assert isinstance(prompt, str)
        boundaries = (len(prompt),)
    return Sample(
        prompt,
        record.references[0],
        record.references,
        boundaries=boundaries if split_fields else (),
        add_special_tokens=add_special_tokens,
    )


def _messages(record: Record, template: str) -> tuple[Message, ...] | None:
    prompt = record.prompt
    if isinstance(prompt, Instruction) and template == "chat":
        task = f"{prompt.instruction}\n\n{prompt.input}" if prompt.input else prompt.instruction
        return (Message("user", task),)
    return prompt if isinstance(prompt, tuple) else None


class _ChatWriter:
    """Writes conversations as samples.

    Args:
        tokenizer: Tokenizer with a chat template.
        options: Variables of the template.
        split_fields: Whether samples record the boundaries of contents.
        supervise: Which turns are supervised, as in ``render_prompts``.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any], split_fields: bool, supervise: str
    ):
        self._tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer, options)
        self._asked = supervise == "none"
        self._check = FieldCheck(self._template, self._asked)
        self._split_fields = split_fields
        self._supervise = supervise

    def write(self, messages: Sequence[Message], record: Record) -> tuple[Sample, list[str]]:
        """The sample of a row, and what the template leaves out of the row."""
        answer = record.answer or Message(ANSWERS, record.references[0])
        conversation = self._template.conversation(messages, answer, record.tools, self._asked)
        left_out = list(self._check.unwritten(conversation))
        if self._asked:
            sample = Sample(self._template.prompt(conversation), "", self._references(conversation, record), True)
            return sample, left_out
        written = self._written(conversation)
        sample = Sample(written.prompt, written.response, record.references, True, as_asked=written.as_asked)
        if self._supervise == "all":
            sample = self._with_all_turns(sample, conversation)
        if self._split_fields:
            sample = replace(sample, boundaries=self._boundaries(sample, conversation))
        return sample, left_out

    @cached_property
    def _end(self) -> str:
        return chat_end_text(self._tokenizer)

    @cached_property
    def _ends(self) -> tuple[str, ...]:
        """Texts of the tokens that may end a turn: the special ones, and the one that the template ends answers with.

        Other added tokens, such as those around calls of tools, are text of the answer.
        """
        return tuple(filter(None, {*_special_texts(self._tokenizer), self._end}))

    def _written(self, conversation: Conversation) -> Written:
        """Prompt and answer; what the template writes after the token that ends the turn is left out."""
        written = self._template.write(conversation)
        response = written.response
        if self._end:
            between, end, further = written.tail.partition(self._end)
            if self._end in further and response.endswith(written.tail):  # it ends the conversation as well
                response = response.removesuffix(written.tail) + between + end
        ended = response.rstrip()
        return written._replace(response=ended if ended.endswith(self._ends) else response)

    def _with_all_turns(self, sample: Sample, conversation: Conversation) -> Sample:
        """The sample with its response from the first answer of the conversation on, and all answers supervised.

        Raises:
            ValueError: The template writes an earlier answer in another way than as the last one.
        """
        roles = [turn["role"] for turn in conversation.turns]
        earlier = [self._range(sample.text, conversation, index) for index, role in enumerate(roles) if role == ANSWERS]
        if not earlier:
            return sample
        text, first = sample.text, earlier[0][0]
        supervised = (*earlier, (len(sample.prompt), len(text)))
        return replace(sample, prompt=text[:first], response=text[first:], supervised=supervised)

    def _range(self, text: str, conversation: Conversation, index: int) -> Span:
        """Where the whole text has an earlier answer, as it is written where it is the last turn."""
        written = self._written(conversation.until(index))
        starts = [len(written.prompt)] if text.startswith(written.prompt) else []
        before = self._template.before(conversation.whole, index, conversation.tools)
        if before is not None:
            start = len(before) - written.lead
            starts += [start] if text.startswith(before[:start]) else []
        for start, response in product(starts, self._closings(written.response)):
            if text.startswith(response, start):
                return start, start + len(response)
        problem = f"messages[{index}] is written in another way once other turns follow"
        raise ValueError(f"{problem}: set data.supervise to 'last', or give every answer a row of its own")

    def _closings(self, response: str) -> Iterator[str]:
        """An answer with all special tokens that follow it, and with ever fewer: some only end a conversation."""
        special = sorted(_special_texts(self._tokenizer), key=len, reverse=True)
        yield response
        while last := next((text for text in special if text and response.endswith(text)), ""):
            response = response.removesuffix(last).rstrip()
            if response.endswith(self._ends):
                yield response

    def _references(self, conversation: Conversation, record: Record) -> tuple[str, ...]:
        """The references; of an answer that calls tools, the text of the calls, without special tokens."""
        if CALLS not in conversation.answer:
            return record.references
        special = map(re.escape, sorted(self._ends, key=len, reverse=True))
        return (re.sub("|".join(special), "", self._template.write(conversation).response).strip(),)

    def _boundaries(self, sample: Sample, conversation: Conversation) -> tuple[int, ...]:
        turns = conversation.whole
        indices = [index for index, turn in enumerate(turns) if isinstance(turn.get("content"), str)]

        def render_contents(contents: Sequence[str]) -> str:
            replaced = dict(zip(indices, contents, strict=True))
            written = [{**turn, "content": replaced[i]} if i in replaced else turn for i, turn in enumerate(turns)]
            return self._template.render(written, conversation.tools)

        boundaries = chat_boundaries(sample.text, [turns[index]["content"] for index in indices], render_contents)
        return tuple(sorted({len(sample.prompt), *boundaries}))


def _special_texts(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return {*added, *tokenizer.all_special_tokens}


_USUAL_ROLES = ("system", "user", ANSWERS)


def _unusual(record: Record) -> str:
    """What templates often refuse: roles beyond the usual ones, and fields beyond role and content."""
    turns = record.prompt if isinstance(record.prompt, tuple) else ()
    named = [
        f"messages[{index}].role {turn.role!r}" if turn.role not in _USUAL_ROLES else f"messages[{index}].{name}"
        for index, turn in enumerate([*turns, *([record.answer] if record.answer else [])])
        for name in (turn.fields or ([""] if turn.role not in _USUAL_ROLES else []))
    ]
    return f"; it has {', '.join(dict.fromkeys(named))}" if named else ""


def _option_faults(tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any], where: str) -> list[Fault]:
    source = tokenizer.chat_template or ""
    words = set(re.findall(r"[A-Za-z_]\w*", "\n".join(source.values()) if isinstance(source, dict) else source))
    return [
        Fault(
            f"{where}_options.{name}",
            f"is no variable of the tokenizer's chat template (got {value!r})",
            "a variable that the template reads",
            nearest(name, sorted(words)) or "Remove it, or correct its name.",
        )
        for name, value in options.items()
        if name not in words
    ]


def _no_template(tokenizer: PreTrainedTokenizerBase, where: str) -> Fault:
    problem = f"the tokenizer has no chat template (got {tokenizer.name_or_path or type(tokenizer).__name__})"
    hint = f"Set {where} to 'alpaca' and use instruction or prompt rows, or take another tokenizer."
    return Fault(where, problem, "a tokenizer with a chat template", hint)
