"""Mutations of a sound spec: of its values, keys and structure, and of its text."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    10**30,
    1e308,
    0.5,
    "",
    "x" * 5000,
    "\ud800",
    "\x1b[31m",
    "../..",
    "/dev/null",
    "~nobody/x",
    [],
    {},
    [1],
    ["kl"],
    {"name": "kl"},
    {"name": "rouge_l", "params": {"x": 1}},
)
"""Values that a field may be given instead of its own."""


def mutated_text(document: dict[str, Any], draw: random.Random) -> str:
    """A text that came from a document by one to four mutations, and every fourth time by one of the text itself."""
    mutated = copy.deepcopy(document)
    for _ in range(draw.randint(1, 4)):
        _mutate(mutated, draw)
    text = json.dumps(mutated)
    return _mutated_characters(text, draw) if draw.random() < 0.25 else text


def _mutate(document: dict[str, Any], draw: random.Random) -> None:
    holders = _holders(document)
    holder = draw.choice(holders)
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    if not keys:
        return
    key = draw.choice(keys)
    kind = draw.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        letters = list(key)
        letters.insert(draw.randrange(len(letters) + 1), draw.choice("ax_.\u00e9"))
        holder["".join(letters)] = holder.pop(key)
    elif kind == 2:
        holder[key] = copy.deepcopy(draw.choice(holders))
    elif kind == 3:
        value: Any = copy.deepcopy(draw.choice(ODD))
        for _ in range(draw.choice((1, 3, 60))):
            value = [value] if draw.random() < 0.5 else {"a": value}
        holder[key] = value
    else:
        holder[key] = copy.deepcopy(draw.choice(ODD))


def _holders(value: Any) -> list[Any]:
    """All objects and lists of a document, itself included."""
    holders, level = list[Any](), [value]
    while level:
        level = [entry for entry in level if isinstance(entry, dict | list)]
        holders += level
        level = [inner for entry in level for inner in (entry.values() if isinstance(entry, dict) else entry)]
    return holders


def _mutated_characters(text: str, draw: random.Random) -> str:
    at = draw.randrange(len(text))
    kind = draw.randrange(4)
    if kind == 0:
        return text[:at]
    if kind == 1:
        return text[:at] + draw.choice(('"', "{", "}", ",", "\x00", "\u2028", "NaN", "1e999", "/*")) + text[at:]
    if kind == 2:
        return text[:at] + text[at + draw.randint(1, 20) :]
    return text + draw.choice((text, " ", "}", "\ufeff"))
