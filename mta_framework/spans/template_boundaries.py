"""Finds where template fields begin and end in a text, so that fields and template text can be parsed separately."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from string import Formatter

_PLACEHOLDER = "\ue000field\ue000"
"""Contains private-use characters, so that no template contains it or strips it."""


def fill_template(template: str, **fields: str) -> tuple[str, tuple[int, ...]]:
    """Fill in a template and record where its fields begin and end.

    Args:
        template: Format string with the names of fields in braces.
        fields: Content of each field.

    Returns:
        The text, and its boundaries: the character offsets at which a field begins or ends, ascending, from 1 up to the
        end of the text.
    """
    parts = [part for text, name, *_ in Formatter().parse(template) for part in (text, fields[name] if name else "")]
    return "".join(parts), _boundaries(parts)


def chat_boundaries(text: str, contents: Sequence[str], render: Callable[[Sequence[str]], str]) -> tuple[int, ...]:
    """Find where the contents of the turns begin and end in a conversation that a chat template has rendered.

    Args:
        text: The rendered conversation, or a prefix of it.
        contents: Content of each turn.
        render: Renders a conversation of the same roles with other contents.

    Returns:
        Character offsets, ascending; empty where the template changes contents in any way but stripping white space
        around them.
    """
    try:
        frame = render([_PLACEHOLDER] * len(contents)).split(_PLACEHOLDER)
    except Exception:  # a template is foreign code, and may refuse the placeholder
        return ()
    for written in (contents, [content.strip() for content in contents]):
        if len(frame) == len(written) + 1:
            parts = [part for pair in zip(frame, [*written, ""], strict=True) for part in pair]
            if "".join(parts).startswith(text):
                return tuple(boundary for boundary in _boundaries(parts) if boundary < len(text))
    return ()


def _boundaries(parts: Iterable[str]) -> tuple[int, ...]:
    return tuple(sorted({end for end in accumulate(map(len, parts)) if end > 0}))
