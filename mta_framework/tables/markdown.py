"""Tables and foreign text as Markdown."""

from __future__ import annotations

import re

from mta_framework.tables.table import Table, TableCell
from mta_framework.tables.terminal_chars import glyph, visible

# What Markdown, as code hosts extend it, takes for markup within a line: links and mentions come without brackets too.
_MARKUP = re.compile(r"[&<>|*`~\[\]\\$@]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=\bwww)\.", re.IGNORECASE)
_LINE_END = re.compile(r"\r\n?|\n")


def escape(text: str) -> str:
    """Text that Markdown shows as it is, within one cell of a table."""
    lines = (visible(line) for line in _LINE_END.split(text))
    return "<br>".join(_MARKUP.sub(lambda match: f"&#{ord(match[0])};", line) for line in lines)


def code_span(text: str) -> str:
    """The text as code within a line, between backticks that no part of the text can end."""
    shown = "".join(map(glyph, text))
    fence = "`" * (max(map(len, re.findall("`+", shown)), default=0) + 1)
    blank = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{blank}{shown}{blank}{fence}"


def sentence(text: str) -> str:
    """A sentence in which the names between backticks are code; all else is shown as it is."""
    parts = re.split(r"`([^`\n]+)`", text)
    return "".join(code_span(part) if index % 2 else escape(part) for index, part in enumerate(parts))


def code_block(text: str, language: str = "") -> str:
    """A block of code, in a fence that no line of the text can end."""
    shown = "\n".join(visible(line) for line in _LINE_END.split(text))
    longest = max((len(fence) for fence in re.findall(r"`{3,}", shown)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{shown.rstrip()}\n{fence}"


def markdown_table(table: Table) -> str:
    """The table without its caption, which a page gives as a heading; all text is escaped."""
    rule = ["---:" if letter == "r" else "---" for letter in table.alignments]
    rows = [[_cell(cell) for cell in row] + [""] * (len(rule) - len(row)) for row in table.cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in [[*map(escape, table.header)], rule, *rows])


def _cell(cell: TableCell) -> str:
    text = escape(cell.text)
    below = f"<br>{escape(cell.below)}" if cell.below else ""
    return f"{f'**{text}**' if cell.bold else text}{escape(cell.mark)}{below}"
