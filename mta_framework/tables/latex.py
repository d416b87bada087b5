"""Tables and foreign text as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mta_framework.tables.table import Table, TableCell
from mta_framework.tables.terminal_chars import glyph

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "<": r"$<$",
    ">": r"$>$",
    "±": r"$\pm$",
    "−": "$-$",
    "†": r"$^\dagger$",
    "\n": " ",
    "\r": " ",
    "\t": " ",
}
_BLANKS = "\n\r\t"
_SPECIAL = re.compile("|".join(map(re.escape, _ESCAPES)))


def escape(text: str) -> str:
    """Text that LaTeX sets as it is; a question mark stands for characters that steer and have no glyph."""
    plain = "".join(mark if mark in _BLANKS or glyph(mark) == mark else "?" for mark in text)
    escaped = _SPECIAL.sub(lambda match: _ESCAPES[match[0]], plain)
    # At the start of a row a bracket or star would belong to the end of the row above.
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped


def latex_table(table: Table, notes: Sequence[str] = ()) -> str:
    """A ``table`` environment with the caption above and notes below; it needs ``booktabs``."""
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(table.caption)}}}",
            rf"\begin{{tabular}}{{{table.alignments}}}",
            r"\toprule",
            " & ".join(map(escape, table.header)) + r" \\",
            r"\midrule",
            *_body(table),
            r"\bottomrule",
            r"\end{tabular}",
            r"\begin{minipage}{\linewidth}\footnotesize",
            *(rf"\par {escape(note)}" for note in notes),
            r"\end{minipage}",
            r"\end{table}",
        ]
    )


def _body(table: Table) -> Iterator[str]:
    for index, row in enumerate(table.cells):
        if index in table.rules:
            yield r"\midrule"
        if len(row) < len(table.header):
            yield rf"\multicolumn{{{len(table.header)}}}{{l}}{{{escape(row[0].text)}}} \\"
            continue
        yield " & ".join(map(_cell, row)) + r" \\"
        if any(cell.below for cell in row):
            below = (rf"{{\scriptsize {escape(cell.below)}}}" if cell.below else "" for cell in row)
            yield " & ".join(below) + r" \\"


def _cell(cell: TableCell) -> str:
    text = escape(cell.text)
    return (rf"\textbf{{{text}}}" if cell.bold else text) + escape(cell.mark)
