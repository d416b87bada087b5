"""Turns of conversations, as rows have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Turn = Mapping[str, Any]

TOOLS = [{"type": "function", "function": {"name": "weather"}}]


def turn(role: str, content: Any, **fields: Any) -> Turn:
    """One turn."""
    return {"role": role, "content": content, **fields}


def call(arguments: Any, content: str | None = None) -> Turn:
    """A turn of the assistant that calls the tool of ``TOOLS``."""
    return turn("assistant", content, tool_calls=[{"function": {"name": "weather", "arguments": arguments}}])


USER, ANSWER = turn("user", "a"), turn("assistant", "b")
