"""Where the fields of a row lie in its text: what a template wrote can be parsed apart from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from string import Formatter

_PLACEHOLDER = "\ue000field\ue000"
"""Of private-use characters, so that no template has it, and none trims it."""


def filled(form: str, **fields: str) -> tuple[str, tuple[int, ...]]:
    """Fill in a form.

    Args:
        form: With the names of fields in braces.
        fields: What they say.

    Returns:
        The text, and where the fields begin and end in it: ascending offsets above 0, the last one the text's end.
    """
    pieces = [piece for text, name, *_ in Formatter().parse(form) for piece in (text, fields[name] if name else "")]
    return "".join(pieces), _ends(pieces)


def field_cuts(text: str, contents: Sequence[str], written: Callable[[Sequence[str]], str]) -> tuple[int, ...]:
    """Where the contents of a conversation begin and end in its text.

    Args:
        text: The conversation, as a chat template writes it, or its beginning.
        contents: Of the turns.
        written: Writes a conversation with the same turns and other contents.

    Returns:
        Ascending offsets; none where the template does more with contents than to write them down, perhaps without the
        white space around them.
    """
    try:
        frame = written([_PLACEHOLDER] * len(contents)).split(_PLACEHOLDER)
    except Exception:  # a template is foreign code, and may refuse what no row says
        return ()
    for some in (contents, [content.strip() for content in contents]):
        if len(frame) == len(some) + 1:
            pieces = [piece for pair in zip(frame, [*some, ""], strict=True) for piece in pair]
            if "".join(pieces).startswith(text):
                return tuple(place for place in _ends(pieces) if place < len(text))
    return ()


def _ends(pieces: Iterable[str]) -> tuple[int, ...]:
    return tuple(sorted({end for end in accumulate(map(len, pieces)) if end > 0}))
