"""A comparison as CSV, with all digits."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from mta_framework.comparison.results import Comparison, Interval
from mta_framework.comparison.tables import set_name

_SCORES = ("metric", "set", "row", "runs", "mean", "deviation", "over", "seeds", "low", "high")
_AGAINST = (
    "compared_with",
    "difference",
    "difference_low",
    "difference_high",
    "p",
    "p_holm",
    "wins",
    "ties",
    "losses",
    "p_seeds",
)
_WINS = ("metric", "set", "prompt", "row", "score", "compared_with", "compared_score", "outcome")


def scores_csv(comparison: Comparison) -> str:
    """One line for each row and column of each table; what it is compared with stands beside it."""
    found = []
    for metric in comparison.metrics:
        for row in comparison.rows:
            for name in comparison.columns:
                cell, contrast = row.cells[metric.label, name], comparison.contrast((metric.label, name), row.label)
                spread = [_number(cell.deviation), cell.over, cell.count, *_ends(cell.interval)]
                line = [metric.label, set_name(name), row.label, len(row.runs), _number(cell.mean), *spread]
                if contrast is not None:
                    line += [contrast.baseline, _number(contrast.difference), *_ends(contrast.interval)]
                    line += [_number(contrast.p), _number(contrast.p_holm)]
                    line += [contrast.wins, contrast.ties, contrast.losses, _number(contrast.p_seeds)]
                found.append([*line, *[""] * (len(_SCORES) + len(_AGAINST) - len(line))])
    return _csv((*_SCORES, *_AGAINST), found)


def wins_csv(comparison: Comparison) -> str:
    """One line for each prompt of each contrast: both scores, and 1 where the row is better, -1 where it is worse."""
    return _csv(
        _WINS,
        (
            [
                pair.metric,
                pair.set,
                pair.number,
                pair.other,
                _number(pair.other_score),
                pair.baseline,
                _number(pair.baseline_score),
                pair.outcome,
            ]
            for pair in comparison.pairs
        ),
    )


def _csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()


def _ends(interval: Interval | None) -> list[str]:
    return ["", ""] if interval is None else [_number(end) for end in interval]


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)
