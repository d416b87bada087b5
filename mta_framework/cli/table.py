"""Plain text tables with aligned columns."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence

_GAP = "  "
_LEAST_LAST = 30


def table(rows: Sequence[Sequence[str]], indent: str = "", right: bool = False) -> Iterator[str]:
    """Lines of a table; the last column is wrapped at the width of the terminal.

    Args:
        rows: Cells; every row has as many as the first.
        indent: Put before every line.
        right: Align all columns but the first to the right, as for numbers.
    """
    if not rows:
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    used = len(indent) + sum(width + len(_GAP) for width in widths[:-1])
    room = max(shutil.get_terminal_size((120, 24)).columns - used, _LEAST_LAST)
    for row in rows:
        *cells, last = row
        adjusted = [cell.rjust(width) if right and i else cell.ljust(width) for i, (cell, width) in _zip(cells, widths)]
        lines = [last.rjust(widths[-1])] if right else textwrap.wrap(last, room) or [""]
        yield (indent + _GAP.join([*adjusted, lines[0]])).rstrip()
        yield from (" " * used + line for line in lines[1:])


def _zip(cells: Sequence[str], widths: Sequence[int]) -> Iterator[tuple[int, tuple[str, int]]]:
    return enumerate(zip(cells, widths, strict=False))
