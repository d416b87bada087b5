"""Whether a chat template writes what the messages of a row hold: what it would drop in silence is a fault."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from mta_framework.data.chat_template import ChatTemplate, Conversation, Turn
from mta_framework.data.rows import NOTHING, REASONING

_CHANGED = "\ue000"

_Input = tuple[Sequence[Turn], Sequence[Turn]]
"""The turns of a conversation, and its tools."""


class FieldCheck:
    """Finds the fields of messages that a chat template leaves out.

    A field is written if the text changes with it, in its conversation or in the one that ends with its message:
    templates leave the reasoning of earlier turns out on purpose. What holds for one message holds for all of the same
    role and fields, which are not rendered again.

    Args:
        template: The chat template.
    """

    def __init__(self, template: ChatTemplate):
        self._template = template
        self._written: set[tuple[object, ...]] = set()

    def unwritten(self, conversation: Conversation) -> Iterator[str]:
        """Name the fields that the template leaves out, each with its value."""
        whole, tools = conversation.whole, conversation.tools
        if tools and not self._known(("tools",), ((whole, tools), (whole, ()))):
            yield f"tools is left out by the chat template (got {len(tools)})"
        for index, turn in enumerate(whole):
            shape = (turn["role"], index == 0, *((name, turn[name] not in NOTHING) for name in sorted(turn)))
            for name in (name for name, value in turn.items() if name != "role" and value not in NOTHING):
                if name == REASONING and turn is conversation.answer and self._template.begins_reasoning(conversation):
                    continue  # it goes into the block that the generation prompt begins
                changed = (*whole[:index], _without(turn, name), *whole[index + 1 :])
                until = index + 1
                pairs = ((whole, tools), (changed, tools)), ((whole[:until], tools), (changed[:until], tools))
                if not self._known((name, *shape), *pairs):
                    yield f"messages[{index}].{name} is left out by the chat template (got {_shown(turn, name)})"

    def _known(self, key: tuple[object, ...], *pairs: tuple[_Input, _Input]) -> bool:
        """Whether a field is written: one of the pairs of conversations, with it and without it, differs."""
        if key not in self._written and self._differ(pairs):
            self._written.add(key)
        return key in self._written

    def _differ(self, pairs: Sequence[tuple[_Input, _Input]]) -> bool:
        texts = [(self._rendered(*whole), self._rendered(*changed)) for whole, changed in pairs]
        # Where the template refuses a conversation as it stands, nothing is known.
        known = [(whole, changed) for whole, changed in texts if whole is not None]
        return not known or any(whole != changed for whole, changed in known)

    def _rendered(self, turns: Sequence[Turn], tools: Sequence[Turn]) -> str | None:
        try:
            return self._template.render(turns, tools)
        except TimeoutError:
            raise
        except Exception:  # a template is foreign code
            return None


def _without(turn: Turn, name: str) -> Turn:
    """The turn without a field; with another content, as a turn has to have one, and with true for 0 and false."""
    if name == "content":
        return {**turn, name: f"{turn[name]}{_CHANGED}"}
    if not turn[name]:  # to many templates the same as no field at all
        return {**turn, name: True}
    return {key: value for key, value in turn.items() if key != name}


def _shown(turn: Turn, name: str) -> str:
    text = json.dumps(turn[name], ensure_ascii=False)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return f"{text} of role {turn['role']!r}"
