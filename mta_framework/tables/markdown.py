"""Tables and foreign text as Markdown."""

from __future__ import annotations

import re

from mta_framework.tables.table import Cell, Table

# What Markdown takes for markup within a line; an underscore inside a word is none.
_MARKUP = re.compile(r"[&<>|*`~\[\]\\$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_LINE_END = re.compile(r"\r\n?|\n")


def escape(text: str) -> str:
    """Text that Markdown shows as it is, within one cell of a table."""
    escaped = _MARKUP.sub(lambda match: f"&#{ord(match[0])};", text)
    return _LINE_END.sub("<br>", escaped)


def markdown_table(table: Table) -> str:
    """The table without its caption, which a page gives as a heading; all text is escaped."""
    rule = ["---:" if letter == "r" else "---" for letter in table.alignments]
    rows = [[_cell(cell) for cell in row] + [""] * (len(rule) - len(row)) for row in table.cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in [[*map(escape, table.header)], rule, *rows])


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    below = f"<br>{escape(cell.below)}" if cell.below else ""
    return f"{f'**{text}**' if cell.bold else text}{escape(cell.mark)}{below}"
