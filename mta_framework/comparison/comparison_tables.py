"""The tables of a comparison, before any markup."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from mta_framework.comparison.notes import BOLD, DAGGER
from mta_framework.comparison.results import CellKey, Comparison, Contrast, Interval, Row, Verdict
from mta_framework.evaluation.report import ReportedMetric
from mta_framework.evaluation.score_tables import figure
from mta_framework.tables.table import Table, TableCell

MINUS = "\N{MINUS SIGN}"
_OUTCOMES = "wins/ties/losses"


def comparison_table(comparison: Comparison, metric: ReportedMetric) -> Table:
    """The scores by a metric: bold for the best of its family, a dagger for significant differences."""
    rows: list[list[str | TableCell]] = []
    rules = []
    for _, family in families(comparison):
        rules.append(len(rows))
        rows += [[row.label, *_scores(comparison, row, metric)] for row in family]
    caption = f"{metric.label} ({'higher' if metric.higher_is_better else 'lower'} is better)"
    return Table(["", *map(set_name, comparison.columns)], rows, caption, rules=rules[1:])


def contrast_table(comparison: Comparison, metric: ReportedMetric) -> Table:
    """The differences by a metric, each row of the comparison under a heading of its own."""
    contrasts = [entry for entry in comparison.contrasts if entry.metric == metric.label]
    header = ["set", "difference", "95 % interval", "p", "p (Holm)", _OUTCOMES]
    seeds = ["p (seeds)", "smallest effect"] if any(entry.seeds is not None for entry in contrasts) else []
    rows = _under_headings(contrasts, (_contrast_row(entry)[: len(header) + len(seeds)] for entry in contrasts))
    return Table([*header, *seeds], rows, f"Differences in {metric.label}")


def verdict_table(comparison: Comparison) -> Table:
    """The verdicts of a metric that compares responses; without rows where none was asked for."""
    names = ", ".join(dict.fromkeys(entry.metric for entry in comparison.verdicts))
    caption = f"{names}: how often the row is preferred to what it is compared with"
    rows = _under_headings(comparison.verdicts, map(_verdict_row, comparison.verdicts))
    return Table(["set", "preferred", "95 % interval", "p", _OUTCOMES], rows, caption)


def run_table(comparison: Comparison) -> Table:
    """The runs of each row."""
    rows = [[run.row, run.name, "" if run.seed is None else str(run.seed)] for run in comparison.runs]
    return Table(["row", "run", "training seed"], rows, "Runs", alignment="llr")


def best_rows(comparison: Comparison, key: CellKey, higher_is_better: bool) -> set[str]:
    """Labels of the rows with the best score among those that are compared with each other."""
    best = set()
    for _, rows in families(comparison):
        if len(rows) > 1:
            means = [row.cells[key].mean for row in rows]
            top = max(means) if higher_is_better else min(means)
            best |= {row.label for row, mean in zip(rows, means, strict=True) if mean == top}
    return best


def notes_with_bold(comparison: Comparison) -> list[str]:
    """The notes under a table in which the best scores are bold."""
    several = bool(comparison.metrics) and any(len(rows) > 1 for _, rows in families(comparison))
    return [*comparison.notes, *([BOLD] if several else [])]


def families(comparison: Comparison) -> list[tuple[str, list[Row]]]:
    """Rows that are compared with each other, each family under the label of its first baseline."""
    rows = {row.label: row for row in comparison.rows}
    families: dict[str, list[Row]] = {}
    for row in comparison.rows:
        root, seen = row, {row.label}
        while root.baseline is not None and root.baseline not in seen:
            seen.add(root.baseline)
            root = rows[root.baseline]
        families.setdefault(root.label, []).append(row)
    return list(families.items())


def set_name(name: str | None) -> str:
    """Name of a set, or ``average``."""
    return "average" if name is None else name


def probability(p: float) -> str:
    """``0.032``, or ``< 0.001``."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def signed(value: float) -> str:
    """``+1.50`` or ``−1.50``."""
    return minus(figure(value, "+"))


def _scores(comparison: Comparison, row: Row, metric: ReportedMetric) -> Iterator[TableCell]:
    for name in comparison.columns:
        key = (metric.label, name)
        cell, contrast = row.cells[key], comparison.contrast(key, row.label)
        deviation = "" if cell.deviation is None else f" ± {figure(cell.deviation)}"
        best = row.label in best_rows(comparison, key, metric.higher_is_better)
        mark = DAGGER if contrast is not None and contrast.significant else ""
        yield TableCell(f"{minus(figure(cell.mean))}{deviation}", best, mark, _interval(cell.interval, figure))


def _under_headings(entries: Sequence[Contrast | Verdict], rows: Iterable[list[str]]) -> list[list[str]]:
    """The rows of the entries, with a heading above those of one pair of labels."""
    lines: list[list[str]] = []
    last = None
    for entry, row in zip(entries, rows, strict=True):
        heading = [f"{entry.row} compared with {entry.baseline}"]
        lines += [row] if heading == last else [heading, row]
        last = heading
    return lines


def _contrast_row(entry: Contrast) -> list[str]:
    estimate = [signed(entry.difference), _interval(entry.interval, signed)]
    probabilities = [probability(entry.p), probability(entry.p_holm)]
    seeds = ["", ""] if entry.seeds is None else [probability(entry.seeds.p), figure(entry.seeds.smallest_effect)]
    return [set_name(entry.set), *estimate, *probabilities, _outcomes(entry), *seeds]


def _verdict_row(entry: Verdict) -> list[str]:
    interval = _interval(entry.interval, "{:.1%}".format)
    return [set_name(entry.set), f"{entry.share:.1%}", interval, probability(entry.p), _outcomes(entry)]


def _outcomes(entry: Contrast | Verdict) -> str:
    return f"{entry.wins} / {entry.ties} / {entry.losses}"


def _interval(ends: Interval | None, shown: Callable[[float], str]) -> str:
    return "" if ends is None else minus(f"[{shown(ends[0])}, {shown(ends[1])}]")


def minus(value: str) -> str:
    """The text with a minus sign in place of hyphens."""
    return value.replace("-", MINUS)
