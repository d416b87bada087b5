"""Whether a chat template writes what the messages of a row hold: what it would drop in silence is a fault."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

from mta_framework.data.chat_template import ChatTemplate, Conversation, Turn
from mta_framework.data.reasoning import Marks
from mta_framework.data.rows import ANSWERS, CALLS, NOTHING, REASONING

_CHANGED = "\ue000"


class _Part(NamedTuple):
    """A field of a turn, or a part of it.

    Attributes:
        label: Its name in messages, e.g. ``content`` or ``tool_calls[1]``.
        value: What it holds.
        changed: The turn without it; with another content, as a turn has to have one.
        kind: What it has in common with parts of other turns.
        whole: Whether it is the whole of what ``label`` names.
        reasoning: Whether it is reasoning before an answer.
    """

    label: str
    value: object
    changed: Turn
    kind: Hashable
    whole: bool = True
    reasoning: bool = False


class _Input(NamedTuple):
    turns: Sequence[Turn]
    tools: Sequence[Turn]
    prompt: bool


class FieldCheck:
    """Finds the fields of messages that a chat template leaves out.

    A field is written if the text that is used changes with it. For a turn of the assistant, the conversation that ends
    with it counts as well: templates leave the reasoning of earlier turns out on purpose. Of a content with marks of
    reasoning, every part between them is a field of its own. What holds for one turn holds for all of the same role,
    fields and neighbours, which are not rendered again.

    Args:
        template: The chat template.
        asked: Whether the prompt for generation is used, and not the conversation with its answer.
    """

    def __init__(self, template: ChatTemplate, asked: bool = False):
        self._template = template
        self._asked = asked
        self._written: set[Hashable] = set()

    def unwritten(self, conversation: Conversation) -> Iterator[str]:
        """Name the fields that the template leaves out, each with its value."""
        if conversation.tools and not self._known(("tools",), [self._without_tools(conversation)]):
            yield f"tools is left out by the chat template (got {len(conversation.tools)})"
        begins_reasoning = cache(lambda: self._template.begins_reasoning(conversation))
        for index, turn in enumerate(conversation.whole):
            around = _neighbourhood(conversation, index)
            for part in self._parts(conversation, index):
                # It goes into the block that the generation prompt begins, where its turn is the last.
                if part.reasoning and turn["role"] == ANSWERS and begins_reasoning():
                    continue
                pairs = list(self._pairs(conversation, index, part.changed))
                if not self._known((part.kind, around), pairs):
                    how = "is left out" if part.whole else "is left out in part"
                    shown = f"{_shown(part.value)} of role {turn['role']!r}"
                    yield f"messages[{index}].{part.label} {how} by the chat template (got {shown})"

    def _parts(self, conversation: Conversation, index: int) -> Iterator[_Part]:
        """The fields of a turn that have to be written."""
        turn = conversation.whole[index]
        is_reference = self._asked and turn is conversation.answer and CALLS not in turn
        for part in _parts(turn, self._template.marks):
            if not (part.label == "content" and is_reference):  # it is taken from the row
                yield part

    def _without_tools(self, conversation: Conversation) -> tuple[_Input, _Input]:
        turns = conversation.turns if self._asked else conversation.whole
        return _Input(turns, conversation.tools, self._asked), _Input(turns, (), self._asked)

    def _pairs(self, conversation: Conversation, index: int, changed: Turn) -> Iterator[tuple[_Input, _Input]]:
        """The conversations that show whether a turn's field is written, each as it is and with the changed turn."""
        whole, tools = conversation.whole, conversation.tools
        asked = self._asked and index < len(conversation.turns)
        ends = [(len(conversation.turns) if asked else len(whole), asked)]
        if whole[index]["role"] == ANSWERS:
            ends.append((index + 1, False))
        for end, prompt in dict.fromkeys(ends):
            with_change = (*whole[:index], changed, *whole[index + 1 : end])
            yield _Input(whole[:end], tools, prompt), _Input(with_change, tools, prompt)

    def _known(self, key: Hashable, pairs: Sequence[tuple[_Input, _Input]]) -> bool:
        """Whether a field is written, as far as the template takes the conversations as they stand."""
        if key in self._written:
            return True
        render = self._template.try_render
        texts = [(render(*whole), render(*changed)) for whole, changed in pairs]
        taken = [(whole, changed) for whole, changed in texts if whole is not None]
        if any(whole != changed for whole, changed in taken):
            self._written.add(key)
            return True
        return not taken


def _neighbourhood(conversation: Conversation, index: int) -> Hashable:
    """What decides, as a rule, whether a template writes a turn: some write one system's turn alone, or the last."""
    roles = [turn["role"] for turn in conversation.whole]
    role, before, after = roles[index], roles[:index], roles[index + 1 :]
    turn = conversation.whole[index]
    fields = tuple((name, turn[name] not in NOTHING) for name in sorted(turn))
    return role, fields, role in before, role in after, tuple(before[-1:]), tuple(after[:1]), bool(conversation.tools)


def _parts(turn: Turn, marks: Marks | None) -> Iterator[_Part]:
    """The fields of a turn that say something, calls of tools and parts of a content one by one."""
    for name, value in turn.items():
        if name == "role" or value in NOTHING:
            continue
        if name == "content":
            yield from _content_parts(turn, marks)
        elif name == CALLS and len(value) > 1:
            for index, call in enumerate(value):
                without = {**turn, name: [*value[:index], *value[index + 1 :]]}
                yield _Part(f"{name}[{index}]", call, without, (name, index > 0))
        elif not value:  # false and 0 are to many templates the same as no field at all
            yield _Part(name, value, {**turn, name: True}, name)
        else:
            without = {key: entry for key, entry in turn.items() if key != name}
            yield _Part(name, value, without, name, reasoning=name == REASONING)


def _content_parts(turn: Turn, marks: Marks | None) -> Iterator[_Part]:
    content = turn["content"]
    pieces = re.split(f"({re.escape(marks.open)}|{re.escape(marks.close)})", content) if marks else [content]
    texts = [index for index in range(0, len(pieces), 2) if pieces[index].strip()]
    if marks is None or len(pieces) == 1 or not texts:
        yield _Part("content", content, {**turn, "content": content + _CHANGED}, "content")
        return
    closed = pieces.index(marks.close) if marks.close in pieces else 0
    begins_with_text = bool(pieces[0].strip()) and marks.open in pieces[:closed]
    for index in texts:
        changed = "".join([*pieces[: index + 1], _CHANGED, *pieces[index + 1 :]])
        kind = ("content", index, tuple(pieces[1::2]))
        reasoning = index < closed and not begins_with_text
        yield _Part("content", pieces[index].strip(), {**turn, "content": changed}, kind, len(texts) == 1, reasoning)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
