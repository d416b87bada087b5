"""A tokenizer's chat template: renders conversations, and tells the answer from what the template writes around it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from mta_framework.data.reasoning import Marks, reasoning_marks
from mta_framework.data.rows import CALLS, REASONING, Message
from mta_framework.models.turn_end import TEMPLATE_SECONDS
from mta_framework.timers import time_limit
from mta_framework.types import Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Turn = Mapping[str, Any]
"""A message as a chat template reads it."""

_CONTENT = "\ue000content\ue000"
"""Stands for the content of an answer; of private-use characters, so that no template contains or strips it."""

_NO_ROOM_TO_REASON = "the answer has reasoning, and the prompt for it ends with a block that is closed"

_REASONING_OPTIONS = ("enable_thinking", "thinking")
"""Template options that ask for reasoning where they are true."""


@dataclass(frozen=True)
class Conversation:
    """The turns of a row, as a chat template reads them.

    Args:
        turns: Turns before the answer.
        answer: The answer.
        tools: JSON schemas of the tools.
    """

    turns: tuple[Turn, ...]
    answer: Turn
    tools: tuple[Turn, ...] = ()

    @property
    def whole(self) -> tuple[Turn, ...]:
        """All turns, the answer included."""
        return (*self.turns, self.answer)

    def until(self, index: int) -> Conversation:
        """The conversation that ends with the turn at ``index`` as its answer."""
        return Conversation(self.whole[:index], self.whole[index], self.tools)


class Written(NamedTuple):
    """A conversation as text.

    Attributes:
        prompt: Everything before the answer, what the template writes between generation prompt and content included.
        response: The answer with what the template writes after it.
        lead: Number of characters that the template writes between prompt and content, e.g. white space.
        tail: What the template writes after the content; empty where that is not known.
        as_asked: Whether a model is asked with the same prompt in generation.
    """

    prompt: str
    response: str
    lead: int = 0
    tail: str = ""
    as_asked: bool = True


class ChatTemplate:
    """Renders conversations with the chat template of a tokenizer.

    Args:
        tokenizer: Tokenizer with a chat template.
        options: Variables of the template, by name.

    Attributes:
        marks: The marks of reasoning that the template knows; None where it knows none.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any]):
        self._tokenizer = tokenizer
        self._options = options
        self.marks: Marks | None = reasoning_marks(tokenizer)
        asked = any(options.get(name) is True for name in _REASONING_OPTIONS)
        self._asked_to_reason = asked and self.marks is not None

    def conversation(
        self, messages: Sequence[Message], answer: Message, tools: Sequence[Mapping[str, Any]], asked: bool = False
    ) -> Conversation:
        """Put messages into the form that the template reads.

        Calls of tools have arguments that are an object or its JSON text, and no content or an empty one: templates
        differ in which of these they take.

        Args:
            messages: Turns before the answer.
            answer: The answer.
            tools: JSON schemas of the tools.
            asked: Whether the template has to take the prompt alone, where the answer calls no tools.

        Raises:
            Exception: The template refuses them in every form; it is foreign code, so it may be any exception.
        """
        first_error: Exception | None = None
        for as_text, empty in product((False, True), (None, "")):
            turns = tuple(_turn(message, as_text, empty) for message in (*messages, answer))
            conversation = Conversation(turns[:-1], turns[-1], tuple(tools))
            if not any(CALLS in turn for turn in turns):
                return conversation
            try:
                prompt = asked and CALLS not in turns[-1]
                text = self.render(turns[:-1] if prompt else turns, tools, prompt)
            except TimeoutError:
                raise
            except Exception as error:
                first_error = first_error or error
                continue
            if not any(str(arguments) in text for arguments in _argument_objects(turns)):
                return conversation
        raise first_error or ValueError("it writes the arguments of calls as Python objects")

    def render(self, turns: Sequence[Turn], tools: Sequence[Turn] = (), prompt: bool = False) -> str:
        """Render turns as text.

        Args:
            turns: At least one turn.
            tools: JSON schemas of the tools.
            prompt: Whether the text that begins an answer is added.

        Raises:
            TimeoutError: The template does not end within ``TEMPLATE_SECONDS``.
        """
        with time_limit(TEMPLATE_SECONDS):
            text = self._tokenizer.apply_chat_template(
                [dict(turn) for turn in turns],
                tools=[dict(tool) for tool in tools] or None,
                tokenize=False,
                add_generation_prompt=prompt,
                **self._options,
            )
        assert isinstance(text, str)
        return text

    def try_render(self, turns: Sequence[Turn], tools: Sequence[Turn] = (), prompt: bool = False) -> str | None:
        """Render turns as text, as ``render`` does; None where the template refuses them."""
        try:
            return self.render(turns, tools, prompt)
        except TimeoutError:
            raise
        except Exception:  # a template is foreign code: it may raise anything
            return None

    def prompt(self, conversation: Conversation) -> str:
        """Write the prompt that a model answers in generation.

        It is what training has before an answer of the same kind, unless the template begins answers with reasoning,
        or is asked to: then the model is free to reason.
        """
        opened = self.render(conversation.turns, conversation.tools, prompt=True)
        if self._asked_to_reason or self._opens(opened):
            return opened
        return self._prompt(conversation, opened, self._frame(conversation)[0])

    def write(self, conversation: Conversation) -> Written:
        """Write prompt and answer for training.

        Raises:
            ValueError: The template writes another prompt once the answer is there.
        """
        opened = self.render(conversation.turns, conversation.tools, prompt=True)
        whole = self.render(conversation.whole, conversation.tools)
        head, tail = self._frame(conversation)
        prompt = self._prompt(conversation, opened, head)
        asked = opened if self._asked_to_reason or self._opens(opened) else prompt
        for candidate in (prompt, opened):
            if whole.startswith(candidate):
                lead = len(head) - len(candidate) if head and head.startswith(candidate) else 0
                return Written(candidate, whole[len(candidate) :], lead, tail, candidate == asked)
        if self.marks and head and opened.startswith(head) and self.marks.opened_by(opened[len(head) :]):
            return self._after_opening(conversation, opened, head)._replace(tail=tail)
        # Where generation begins reasoning, an answer without any may have an empty block.
        if head and whole.startswith(head) and self._opens(opened):
            return Written(head, whole[len(head) :], tail=tail, as_asked=False)
        if self.marks and self.reasons(conversation.answer) and opened.rstrip().endswith(self.marks.close):
            raise ValueError(_NO_ROOM_TO_REASON)
        raise ValueError("the conversation with the answer does not begin with the prompt for it")

    def _after_opening(self, conversation: Conversation, opened: str, head: str) -> Written:
        """Prompt and answer where the generation prompt begins a reasoning block that is not rendered with the answer.

        The reasoning of the answer goes into the block; an answer without any follows what the template writes before
        it in a whole conversation, unless the generation prompt closes the block itself.
        """
        assert self.marks is not None
        closed = self.marks.close in opened[len(head) :]
        reasoning, content = self.marks.split(conversation.answer.get("content") or "", not closed)
        reasoning = conversation.answer.get(REASONING) or reasoning
        bare = {key: value for key, value in conversation.answer.items() if key != REASONING} | {"content": content}
        whole = self.render([*conversation.turns, bare], conversation.tools)
        if not whole.startswith(head):
            raise ValueError("the conversation with the answer does not begin with the prompt for it")
        rest = whole[len(head) :]
        if closed and reasoning:
            raise ValueError(_NO_ROOM_TO_REASON)
        if closed:
            return Written(opened, rest)
        if reasoning:
            return Written(opened, f"{reasoning.strip()}\n{self.marks.close}\n\n{rest}")
        return Written(head, rest, as_asked=False)

    def _frame(self, conversation: Conversation) -> tuple[str | None, str]:
        """What stands before and after the content of the answer, whatever it is; None and "" where it is not known."""
        role = {"role": conversation.answer["role"]}
        around = self._around(role, conversation.whole, len(conversation.turns), conversation.tools)
        return around or (None, "")

    def _prompt(self, conversation: Conversation, opened: str, head: str | None) -> str:
        """The generation prompt, and what the template writes between it and the content of an answer of its kind.

        White space there stays with the answer: it is tokenised with the word that follows.
        """
        answer = conversation.answer
        inserted = head[len(opened) :] if head and head.startswith(opened) else ""
        if self.marks and self.reasons(answer):
            inserted = inserted.split(self.marks.open)[0]
        if not inserted.strip():
            return opened
        if REASONING in answer or CALLS in answer:  # some templates write another header before them than before a text
            whole = self.try_render(conversation.whole, conversation.tools)
            if whole is not None and not whole.startswith(opened + inserted):
                return opened
        return opened + inserted

    def reasons(self, answer: Turn) -> bool:
        """Whether an answer has reasoning."""
        content = answer.get("content") or ""
        return bool(answer.get(REASONING) or (self.marks and self.marks.has_block(content)))

    def begins_reasoning(self, conversation: Conversation) -> bool:
        """Whether the generation prompt begins a reasoning block."""
        return self._opens(self.render(conversation.turns, conversation.tools, prompt=True))

    def _opens(self, prompt: str) -> bool:
        return self.marks is not None and self.marks.begun_by(prompt)

    def before(self, turns: Sequence[Turn], index: int, tools: Sequence[Turn]) -> str | None:
        """Render what stands before the content of one turn in a conversation.

        Returns:
            The text; None where the template refuses another content, or writes it never or several times.
        """
        parts = self._around({"role": turns[index]["role"]}, turns, index, tools)
        return parts[0] if parts else None

    def content_ranges(self, conversation: Conversation) -> Iterator[tuple[Turn, Span]]:
        """Find where the generation prompt has the contents of turns, as the template writes them.

        Yields:
            Each turn whose content the template writes once and in one piece, with its half-open character range.
        """
        turns, tools = conversation.turns, conversation.tools
        prompt = self.render(turns, tools, prompt=True)
        for index, turn in enumerate(turns):
            if not turn.get("content"):
                continue
            before, after = self._around(turn, turns, index, tools, prompt=True) or ("", prompt)
            start, stop = len(before), len(prompt) - len(after)
            if start < stop and prompt.startswith(before) and prompt.endswith(after):
                yield turn, (start, stop)

    def _around(
        self, kept: Turn, turns: Sequence[Turn], index: int, tools: Sequence[Turn], prompt: bool = False
    ) -> tuple[str, str] | None:
        """What stands before and after the content of one turn, of which only some fields are kept."""
        replaced = [*turns[:index], {**kept, "content": _CONTENT}, *turns[index + 1 :]]
        parts = (self.try_render(replaced, tools, prompt) or "").split(_CONTENT)
        return (parts[0], parts[1]) if len(parts) == 2 else None


def _turn(message: Message, as_text: bool, empty: str | None) -> Turn:
    """A message as a template reads it; arguments of calls as JSON text or as objects, and ``empty`` for no content."""
    content = empty if message.content is None else message.content
    fields = dict(message.fields)
    if CALLS in fields:
        fields[CALLS] = [_call(call, as_text) for call in fields[CALLS]]
    return {"role": message.role, **({} if content is None else {"content": content}), **fields}


def _call(call: Mapping[str, Any], as_text: bool) -> dict[str, Any]:
    function = call.get("function")
    if isinstance(function, Mapping):
        return {**call, "function": _call(function, as_text)}
    if "arguments" not in call:
        return dict(call)
    arguments = call["arguments"]
    if as_text and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    elif not as_text and isinstance(arguments, str):
        with suppress(ValueError, RecursionError):  # a text that is no JSON stays as it is
            arguments = json.loads(arguments)
    return {**call, "arguments": arguments}


def _argument_objects(turns: Sequence[Turn]) -> Iterator[object]:
    """Arguments of calls that look different in Python and in JSON."""
    for call in (call for turn in turns for call in turn.get(CALLS, ())):
        function = call.get("function")
        arguments = (function if isinstance(function, Mapping) else call).get("arguments")
        if isinstance(arguments, dict | list) and str(arguments) != json.dumps(arguments, ensure_ascii=False):
            yield arguments
