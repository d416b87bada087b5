"""Tables as lines of a terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from mta_framework.tables.table import Cell, Table
from mta_framework.tables.terminal_chars import glyph, width

_GAP = "  "
_NARROWEST = 16
"""Width down to which a column of text is wrapped before columns go below the others, in terminal cells."""


def terminal_width() -> int:
    """Columns of the terminal; 100 where the output is no terminal and ``COLUMNS`` is not set."""
    return shutil.get_terminal_size((100, 24)).columns


def terminal_table(table: Table, columns: int | None = None, indent: str = "") -> Iterator[str]:
    """Lines of a table without its caption, fitted to the terminal; none for a table without rows.

    Text is wrapped within its column. Columns that still find no room stand below the others, with the first one
    repeated.

    Args:
        table: The table.
        columns: Width of the terminal in cells; None: that of the terminal in which the command runs.
        indent: Put before every line.
    """
    if not table:
        return
    room, letters = (columns or terminal_width()) - len(indent), table.alignments
    rows = list(_texts(table))
    natural, least = _widths(rows, letters)
    for number, block in enumerate(_blocks(least, room)):
        widths = _fitted([natural[index] for index in block], [least[index] for index in block], room)
        yield from [""] * (number > 0)
        for row in rows:
            if len(row) < len(letters):
                yield from (f"{indent}{line}" for line in _wrapped(row[0], room))
                continue
            cells = [_wrapped(row[index], size) for index, size in zip(block, widths, strict=True)]
            for line in zip_longest(*cells, fillvalue=""):
                padded = map(_padded, line, widths, [letters[index] for index in block])
                yield f"{indent}{_GAP.join(padded)}".rstrip()


def _texts(table: Table) -> Iterator[list[str]]:
    """The rows as text, the header first; blanks stand where other cells of a column of figures have a mark."""
    yield list(map(_shown, table.header))
    cells, letters = table.cells, table.alignments
    whole = [row for row in cells if len(row) == len(letters)]
    marks = [
        max((len(row[index].mark) for row in whole), default=0) * (letter == "r")
        for index, letter in enumerate(letters)
    ]
    for row in cells:
        yield [_text(cell, mark) for cell, mark in zip(row, marks, strict=False)]


def _text(cell: Cell, mark: int) -> str:
    below = f"\n{cell.below}{' ' * mark}" if cell.below else ""
    return _shown(f"{cell.text}{cell.mark.ljust(mark)}{below}")


def _shown(text: str) -> str:
    return "\n".join("".join(map(glyph, line)) for line in text.splitlines())


def _widths(rows: Sequence[Sequence[str]], letters: str) -> tuple[list[int], list[int]]:
    """Of each column: the width without wrapping, and the width down to which it may be wrapped."""
    natural, least = [], []
    columns = zip(*(row for row in rows if len(row) == len(letters)), strict=True)
    for letter, (header, *body) in zip(letters, columns, strict=True):
        natural.append(_width("\n".join([header, *body])))
        figures = _width("\n".join([*header.split(), *body]))
        least.append(figures if letter == "r" else min(natural[-1], _NARROWEST))
    return natural, least


def _blocks(least: Sequence[int], room: int) -> Iterator[list[int]]:
    """Indices of the columns that stand side by side; the first column is in every block."""
    block = [0]
    for index in range(1, len(least)):
        taken = sum(least[column] + len(_GAP) for column in block)
        if len(block) > 1 and taken + least[index] > room:
            yield block
            block = [0]
        block.append(index)
    yield block


def _fitted(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Widths of columns side by side: the widest are narrowed until all find room."""
    room -= len(_GAP) * (len(natural) - 1)
    limit = max(natural)
    widths = list(natural)
    while sum(widths) > room and limit > 0:
        limit -= 1
        widths = [max(low, min(high, limit)) for high, low in zip(natural, least, strict=True)]
    return widths


def _wrapped(text: str, room: int) -> list[str]:
    """Lines of at most ``room`` cells."""
    lines = []
    for line in text.split("\n"):
        # For textwrap, each character of two cells counts as two.
        doubled = "".join(character + "\0" * (width(character) - 1) for character in line)
        wrapped = textwrap.wrap(doubled, room, break_on_hyphens=False) if _width(line) > room else [doubled]
        lines += [part.replace("\0", "") for part in wrapped]
    return lines


def _padded(line: str, room: int, letter: str) -> str:
    blanks = " " * (room - _width(line))
    return f"{blanks}{line}" if letter == "r" else f"{line}{blanks}"


def _width(text: str) -> int:
    """Cells of the longest line."""
    return max(sum(map(width, line)) for line in text.split("\n"))
