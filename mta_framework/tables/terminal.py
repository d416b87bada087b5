"""Tables as lines of a terminal."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, zip_longest

from mta_framework.tables.table import Table, TableCell
from mta_framework.tables.terminal_chars import glyph, width

_GAP = "  "
_NARROWEST = 16
"""Width down to which a column of short words is wrapped, in terminal cells."""

Width = tuple[int, int]
"""Least and greatest width of a column."""


def terminal_width() -> int:
    """Columns of the terminal; 100 where the output is no terminal and ``COLUMNS`` is not set."""
    return shutil.get_terminal_size((100, 24)).columns


def terminal_table(table: Table, columns: int | None = None, indent: str = "", styled: bool = False) -> Iterator[str]:
    """Lines of a table without its caption, fitted to the terminal; none for a table without rows.

    Text is wrapped within its column. Columns that still find no room stand below the others, with the first one
    repeated.

    Args:
        table: The table.
        columns: Width of the terminal in cells; None: that of the terminal in which the command runs.
        indent: Put before every line.
        styled: Whether bold cells are set in bold, by escape codes; otherwise nothing shows that they are bold.
    """
    if not table:
        return
    room, letters = (columns or terminal_width()) - len(indent), table.alignments
    rows = list(_texts(table))
    bold = [[False] * len(letters), *([cell.bold and styled for cell in row] for row in table.cells)]
    limits = _widths(rows, letters, room)
    for index, block in enumerate(_blocks(limits, room)):
        widths = _fitted(rows, block, limits, room)
        yield from [""] * (index > 0)
        for row, is_bold in list(zip(rows, bold, strict=True))[not any(table.header) :]:
            if len(row) < len(letters):
                yield from (f"{indent}{line}" for line in _wrapped(row[0], room))
                continue
            cells = [_wrapped(row[index], size) for index, size in zip(block, widths, strict=True)]
            for offset, line in enumerate(zip_longest(*cells, fillvalue="")):
                padded = list(map(_padded, line, widths, [letters[index] for index in block]))
                if offset == 0:
                    padded = [
                        _bold(cell) if is_bold[index] else cell for cell, index in zip(padded, block, strict=True)
                    ]
                yield f"{indent}{_GAP.join(padded)}".rstrip()


def terminal_list(entries: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Indented lines of names, each with its text beside it."""
    return terminal_table(Table(("", ""), list(entries), alignment="ll"), indent="  ")


def size_text(count: int) -> str:
    """Show a number of bytes in the largest fitting unit.

    Args:
        count: Number of bytes.
    """
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << power:
            return f"{count / (1 << power):.1f} {unit}"
    return f"{count} B"


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


def _text(cell: TableCell, mark: int) -> str:
    below = f"\n{cell.below}{' ' * mark}" if cell.below else ""
    return _shown(f"{cell.text}{cell.mark.ljust(mark)}{below}")


def _shown(text: str) -> str:
    return "\n".join("".join(map(glyph, line)) for line in text.splitlines())


def _widths(rows: Sequence[Sequence[str]], letters: str, room: int) -> list[Width]:
    """Limits of each column; words longer than a third of the room may be broken, figures are never."""
    widths = []
    columns = zip(*(row for row in rows if len(row) == len(letters)), strict=True)
    for letter, (header, *body) in zip(letters, columns, strict=True):
        natural = max(_width("\n".join([header, *body])), 1)
        words = _width("\n".join(" ".join([header, *body]).split()))
        figures = _width("\n".join([*header.split(), *body]))
        widths.append((figures if letter == "r" else min(natural, max(1, room // 3), max(words, _NARROWEST)), natural))
    # A table of text alone stays in one piece: words are broken, but for the labels of the first column.
    while "r" not in letters and sum(least + len(_GAP) for least, _ in widths) > room + len(_GAP):
        widest = max(range(1, len(widths)), key=widths.__getitem__)
        if widths[widest][0] <= _NARROWEST // 2:
            break
        widths[widest] = (widths[widest][0] - 1, widths[widest][1])
    return widths


def _blocks(widths: Sequence[Width], room: int) -> Iterator[list[int]]:
    """Indices of the columns that stand side by side; the first column is in every block."""
    block = [0]
    for index in range(1, len(widths)):
        taken = sum(widths[column][0] + len(_GAP) for column in block)
        if len(block) > 1 and taken + widths[index][0] > room:
            yield block
            block = [0]
        block.append(index)
    yield block


def _fitted(rows: Sequence[Sequence[str]], block: Sequence[int], widths: Sequence[Width], room: int) -> list[int]:
    """Widths of columns side by side: from the least on, room is given to where it saves most lines."""
    fitted = [widths[index][0] for index in block]
    sizes = [[_width(row[index]) for index in block] for row in rows if len(row) == len(widths)]
    for _ in range(room - sum(fitted) - len(_GAP) * (len(block) - 1)):
        grown = {
            column: _height(sizes, [*fitted[:column], fitted[column] + 1, *fitted[column + 1 :]])
            for column, index in enumerate(block)
            if fitted[column] < widths[index][1]
        }
        if not grown:
            break
        fitted[min(grown, key=grown.__getitem__)] += 1
    return fitted


def _height(sizes: Sequence[Sequence[int]], widths: Sequence[int]) -> float:
    return sum(max(size / width for size, width in zip(row, widths, strict=True)) for row in sizes)


def _wrapped(text: str, room: int) -> list[str]:
    """Lines of at most ``room`` cells, cut at spaces where there are some; a wider character has a line of its own."""
    lines = []
    for line in text.split("\n"):
        while _width(line) > room:
            fits = max(1, sum(cells <= room for cells in accumulate(map(width, line))))
            space = line.rfind(" ", 0, fits + 1)
            end = space if line[: space + 1].strip() else fits
            lines.append(line[:end].rstrip())
            line = line[end:].lstrip()
        lines.append(line)
    return lines


def _padded(line: str, room: int, letter: str) -> str:
    blanks = " " * (room - _width(line))
    return f"{blanks}{line}" if letter == "r" else f"{line}{blanks}"


def _bold(padded: str) -> str:
    return re.sub(r"\S.*\S|\S", "\x1b[1m\\g<0>\x1b[0m", padded)


def _width(text: str) -> int:
    """Cells of the longest line."""
    return max(sum(map(width, line)) for line in text.split("\n"))
