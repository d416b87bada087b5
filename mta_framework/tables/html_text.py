"""Tables as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mta_framework.tables.table import Table, TableCell


def html_table(table: Table) -> str:
    """A ``table`` element with its caption, which scrolls where it is wider than the page; all text is escaped.

    Classes: ``number`` for the columns aligned to the right, ``best`` for cells in bold, ``block`` for rows below a
    rule. The first cell of a row is its heading.
    """
    letters, caption = table.alignments, escape(table.caption)
    named = zip(table.header, letters, strict=True)
    header = (f'<th scope="col"{_number(letter)}>{escape(name)}</th>' for name, letter in named)
    return "\n".join(
        [
            f'<div class="scroll" role="region" aria-label="{caption}" tabindex="0"><table>',
            f"<caption>{caption}</caption>",
            f"<thead><tr>{''.join(header)}</tr></thead>",
            "<tbody>",
            *(_row(row, letters, index in table.rules) for index, row in enumerate(table.cells)),
            "</tbody>",
            "</table></div>",
        ]
    )


def _row(row: Sequence[TableCell], letters: str, below_rule: bool) -> str:
    tag = '<tr class="block">' if below_rule else "<tr>"
    if len(row) < len(letters):
        return f'{tag}<th scope="rowgroup" colspan="{len(letters)}">{escape(row[0].text)}</th></tr>'
    cells = zip(row[1:], letters[1:], strict=True)
    columns = "".join(f"<td{_number(letter, cell.bold)}>{_content(cell)}</td>" for cell, letter in cells)
    return f'{tag}<th scope="row">{_content(row[0])}</th>{columns}</tr>'


def _content(cell: TableCell) -> str:
    below = f"<small>{escape(cell.below)}</small>" if cell.below else ""
    return f"{escape(cell.text)}{escape(cell.mark)}{below}"


def _number(letter: str, bold: bool = False) -> str:
    classes = " ".join(["number"] * (letter == "r") + ["best"] * bold)
    return f' class="{classes}"' if classes else ""
