"""A comparison as LaTeX tables, to be included where ``booktabs`` is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mta_framework.comparison import tables
from mta_framework.comparison.notes import DAGGER
from mta_framework.comparison.results import Comparison, Row
from mta_framework.evaluation.report import MetricFacts

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "<": r"$<$",
    ">": r"$>$",
    "±": r"$\pm$",
    tables.MINUS: "$-$",
    DAGGER: r"$^\dagger$",
}
_SPECIAL = re.compile("|".join(map(re.escape, _ESCAPES)))


def latex(comparison: Comparison) -> str:
    """One ``table`` for the scores of each metric, one for its differences; notes below each."""
    found = ["% \\usepackage{booktabs}"]
    for metric in comparison.metrics:
        found.append(_table(comparison, tables.heading(metric), list(_scores(comparison, metric))))
        contrasts = tables.contrast_table(comparison, metric)
        if contrasts:
            title = f"Differences in {metric.label}"
            found.append(_table(comparison, title, _plain(contrasts[0], contrasts[1:]), left=3))
    if comparison.verdicts:
        body = _plain(tables.VERDICTS, tables.verdict_rows(comparison))
        found.append(_table(comparison, tables.verdict_heading(comparison), body, left=3))
    return "\n\n".join(found) + "\n"


def escaped(text: str) -> str:
    """Text that LaTeX sets as it is."""
    shown = _SPECIAL.sub(lambda found: _ESCAPES[found[0]], text)
    # At the start of a row a bracket or star would belong to the end of the row above.
    return f"{{}}{shown}" if shown.startswith(("[", "*")) else shown


_RULE = [r"\midrule"]


def _scores(comparison: Comparison, metric: MetricFacts) -> Iterator[Sequence[str]]:
    yield ["", *(escaped(tables.set_name(name)) for name in comparison.columns)]
    for _, rows in tables.families(comparison):
        yield _RULE
        for row in rows:
            yield from _lines(comparison, row, metric)


def _lines(comparison: Comparison, row: Row, metric: MetricFacts) -> Iterator[Sequence[str]]:
    cells = tables.shown(comparison, row, metric)
    yield [escaped(row.label), *map(_score, cells)]
    if any(cell.interval for cell in cells):
        yield ["", *(rf"{{\scriptsize {cell.interval}}}" if cell.interval else "" for cell in cells)]


def _score(cell: tables.Shown) -> str:
    score = escaped(cell.score)
    return (rf"\textbf{{{score}}}" if cell.best else score) + (escaped(DAGGER) if cell.significant else "")


def _plain(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    return [list(map(escaped, head)), _RULE, *(list(map(escaped, row)) for row in rows)]


def _table(comparison: Comparison, caption: str, rows: Sequence[Sequence[str]], left: int = 1) -> str:
    width = len(rows[0])
    body = [row[0] if row is _RULE else f"{' & '.join(row)} \\\\" for row in rows]
    notes = [rf"\par {escaped(note)}" for note in tables.all_notes(comparison)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(caption)}}}",
            rf"\begin{{tabular}}{{{'l' * left}{'r' * (width - left)}}}",
            r"\toprule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\begin{minipage}{\linewidth}\footnotesize",
            *notes,
            r"\end{minipage}",
            r"\end{table}",
        ]
    )
