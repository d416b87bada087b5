"""Tables as CSV."""

from __future__ import annotations

import csv
import io

from mta_framework.tables.table import Table
from mta_framework.tables.terminal_chars import visible

_FULLWIDTH = ("\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}", "\N{FULLWIDTH HYPHEN-MINUS}")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", *_FULLWIDTH, "\N{FULLWIDTH COMMERCIAL AT}")


def csv_table(table: Table) -> str:
    """The header and the text of every cell; marks, second lines and the caption are left out.

    A text that a spreadsheet would take for a formula has an apostrophe in front: "+ DSA" is written "'+ DSA".
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_inert, table.header))
    writer.writerows([_inert(cell.text) for cell in row] for row in table.cells)
    return text.getvalue()


def _inert(text: str) -> str:
    shown = visible(text)
    return f"'{shown}" if text.startswith(_FORMULA_STARTS) and not _is_numeric(text) else shown


def _is_numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and not text[0].isspace()
