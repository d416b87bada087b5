"""A table as a value, before any markup."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

_FIGURE = re.compile(r"[-+−]?(\d|nan\b|inf\b)|[\[<]")


@dataclass(frozen=True)
class TableCell:
    """A cell that is more than plain text.

    Args:
        text: Text of the cell.
        bold: Whether the text is set in bold.
        mark: Sign behind the text that a note explains, such as a dagger; not bold.
        below: Second, smaller line of the cell.
    """

    text: str
    bold: bool = False
    mark: str = ""
    below: str = ""


@dataclass(frozen=True)
class Table:
    """A table that every renderer accepts; it is false when it has no rows.

    Args:
        header: Heading of each column; where all are empty, a terminal shows none.
        rows: Rows with one cell per column. A row of a single cell is a heading that runs through all columns.
        caption: What the table shows.
        alignment: ``l`` or ``r`` for each column; empty: columns of figures to the right, others to the left.
        rules: Indices of the rows above which a rule is drawn.

    Raises:
        ValueError: A row does not have one cell per column.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str | TableCell]]
    caption: str = ""
    alignment: str = ""
    rules: Collection[int] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) not in {1, len(self.header)}:
                raise ValueError(f"a row has {len(row)} cells, the table {len(self.header)} columns")

    def __bool__(self) -> bool:
        return bool(self.rows)

    @property
    def cells(self) -> list[list[TableCell]]:
        """The rows, with plain text as cells."""
        return [[entry if isinstance(entry, TableCell) else TableCell(entry) for entry in row] for row in self.rows]

    @property
    def alignments(self) -> str:
        """``l`` or ``r`` for each column; the first holds labels and is aligned to the left."""
        if self.alignment:
            return self.alignment
        rows = [row for row in self.cells if len(row) == len(self.header)]
        columns = ([row[index].text for row in rows if row[index].text] for index in range(1, len(self.header)))
        return "l" + "".join("r" if column and all(map(_FIGURE.match, column)) else "l" for column in columns)
