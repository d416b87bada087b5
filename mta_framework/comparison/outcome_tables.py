"""The tables of validation outcomes, before any markup."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from statistics import fmean, stdev

from mta_framework.comparison.comparison_tables import families, minus, probability
from mta_framework.comparison.notes import DAGGER
from mta_framework.comparison.results import Comparison, OutcomeContrast, ValidationOutcome
from mta_framework.evaluation.seed_statistics import SeedDifference
from mta_framework.tables.table import Table, TableCell

_HEADER = ("", "mean ± sd", "seeds", "difference", "95 % interval", "p", "p (Holm)", "smallest effect", "test")
_FOUR_DIGITS_BELOW = 10.0
_FOUR_DIGITS_FROM_DEVIATIONS_BELOW = 0.05
_LARGE = 1e6
_TINY = 0.01


def outcome_table(comparison: Comparison, outcome: ValidationOutcome) -> Table:
    """A row for each method: its values over training seeds, and its difference from its baseline."""
    contrasts = {entry.row: entry for entry in outcome.contrasts}
    runs = [[*by_seed.values()] for by_seed in outcome.values.values()]
    shown = value_format([value for row in runs for value in row], [stdev(row) for row in runs if len(row) > 1])
    rows: list[list[str | TableCell]] = []
    rules = []
    for _, family in families(comparison):
        measured = [row.label for row in family if outcome.values.get(row.label)]
        rules += [len(rows)] * bool(measured)
        for label in measured:
            rows.append([label, *_values(outcome.values[label], shown), *_contrast(contrasts.get(label), shown)])
    better = {True: " (higher is better)", False: " (lower is better)", None: ""}[outcome.higher_is_better]
    columns = [index for index in range(len(_HEADER)) if index < 3 or any(_text(row[index]) for row in rows)]
    cells = [[row[index] for index in columns] for row in rows]
    return Table([_HEADER[index] for index in columns], cells, f"{outcome.label}{better}", rules=rules[1:])


def _values(by_seed: Mapping[int, float], shown: Callable[[float], str]) -> list[str]:
    values = [*by_seed.values()]
    deviation = f" ± {shown(stdev(values))}" if len(values) > 1 else ""
    return [f"{shown(fmean(values))}{deviation}", str(len(values))]


def _contrast(entry: OutcomeContrast | None, shown: Callable[[float], str]) -> list[str | TableCell]:
    if entry is None:
        return [""] * 6
    difference = TableCell(_signed(entry.difference, shown), mark=DAGGER * entry.significant)
    if entry.seeds is None or entry.p_holm is None:
        return [difference, *[""] * 5]
    ends = ", ".join(_signed(end, shown) for end in entry.seeds.interval)
    probabilities = [probability(entry.seeds.p), probability(entry.p_holm)]
    return [difference, f"[{ends}]", *probabilities, shown(entry.seeds.smallest_effect), _kind_of_test(entry.seeds)]


def _kind_of_test(seeds: SeedDifference) -> str:
    """``3 pairs``, or ``Welch``."""
    return f"{seeds.seeds[0]} pairs" if seeds.paired else "Welch"


def value_format(values: Iterable[float], deviations: Iterable[float] = ()) -> Callable[[float], str]:
    """How values are written: with two digits after the point, or four where two would hide what they differ by.

    Args:
        values: All values. If they are small, as nats are, they get four digits, and more if they are tiny.
        deviations: Standard deviations of rows over their training seeds. If one is small, so may be a difference.
    """
    is_fine = any(0 < deviation < _FOUR_DIGITS_FROM_DEVIATIONS_BELOW for deviation in deviations)
    largest = max(map(abs, values))
    digits = 4 if is_fine or largest < _FOUR_DIGITS_BELOW else 2
    if 0 < largest < _TINY:
        digits = 2 - math.floor(math.log10(largest))
    return lambda value: minus(f"{value:.{digits}f}" if abs(value) < _LARGE else f"{value:.2g}")


def _signed(value: float, shown: Callable[[float], str]) -> str:
    return f"{'+' if value >= 0 else ''}{shown(value)}"


def _text(cell: str | TableCell) -> str:
    return cell if isinstance(cell, str) else cell.text
