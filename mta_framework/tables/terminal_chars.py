"""What is shown for a character that would steer a terminal or reorder a line, and how many cells a character takes."""

from __future__ import annotations

import unicodedata

_SHOWN = {"\n": "↵", "\t": "→", "\x7f": "␡"}
_UNSHOWN = "\N{REPLACEMENT CHARACTER}"
_BIDIRECTIONAL = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}


def glyph(character: str) -> str:
    """The character itself, or a sign for one that would steer the terminal instead of showing in it."""
    if character in _SHOWN:
        return _SHOWN[character]
    if ord(character) < 0x20:
        return chr(0x2400 + ord(character))
    steering = character in _BIDIRECTIONAL or unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}
    return _UNSHOWN if steering else character


def visible(text: str) -> str:
    """The text with a sign for every character that would steer what displays it; line breaks and tabs stay."""
    if text.isprintable():
        return text
    return "".join(character if character in "\n\t" else glyph(character) for character in text)


def width(shown: str) -> int:
    """Cells of a glyph: 0 for what joins the one before it, 2 for wide ones."""
    if unicodedata.category(shown) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(shown) in {"W", "F"} else 1
