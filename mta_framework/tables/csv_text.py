"""Tables as CSV."""

from __future__ import annotations

import csv
import io

from mta_framework.tables.table import Table


def csv_table(table: Table) -> str:
    """The header and the text of every cell; marks, second lines and the caption are left out."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.header)
    writer.writerows([cell.text for cell in row] for row in table.cells)
    return text.getvalue()
