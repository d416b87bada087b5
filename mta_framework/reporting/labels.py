"""Foreign text as labels of a figure."""

from __future__ import annotations


def label(text: str, longest: int = 40) -> str:
    """The text on one line, shortened, with nothing that a figure takes for mathematics or a control character."""
    shown = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    shown = shown if len(shown) <= longest else shown[: longest - 1] + "…"
    return shown.replace("$", r"\$")
