"""Draws parts of a whole as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from mta_framework.reporting.labels import label
from mta_framework.reporting.palette import FAINT, INK, series
from mta_framework.reporting.svg import dress

_LINE = 0.3
"""Inches that a row takes."""


def parts(values: Mapping[str, float], unit: str) -> Figure:
    """A bar for each part, the value and its share of all beside it.

    Args:
        values: Part -> at least 0.
        unit: Of the values.
    """
    total = sum(values.values()) or 1.0
    figure = Figure(figsize=(4.2, 0.3 + _LINE * len(values)), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh(range(len(values)), list(values.values()), color=series(0), height=0.62)
    told = [f"{value:.3g} {unit} · {value / total:.0%}" for value in values.values()]
    axes.bar_label(bars, told, padding=4, fontsize=9, color=INK)
    axes.set_yticks(range(len(values)), [label(name, 24) for name in values])
    axes.set_xlim(0, max([*values.values(), 1e-12]) * 1.55)
    axes.invert_yaxis()
    axes.set_xticks([])
    dress(axes, grid="x")
    return figure


def outcomes(rows: Sequence[tuple[str, int, int, int]]) -> Figure:
    """A bar for each row, cut into wins, ties and losses, with their numbers in it.

    Args:
        rows: Name, wins, ties, losses.
    """
    figure = Figure(figsize=(4.2, 0.5 + _LINE * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    left = [0.0] * len(rows)
    for place, (name, colour) in enumerate((("wins", series(0)), ("ties", FAINT), ("losses", series(1))), start=1):
        counts = [int(row[place]) for row in rows]
        widths = [count / (sum(row[1:]) or 1) for count, row in zip(counts, rows, strict=True)]
        bars = axes.barh(range(len(rows)), widths, left=left, color=colour, height=0.62, label=name)
        told = [str(count) if width > 0.08 else "" for count, width in zip(counts, widths, strict=True)]
        axes.bar_label(bars, told, label_type="center", fontsize=9, color="#ffffff")
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(rows)), [label(row[0], 30) for row in rows])
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.set_xlim(0, 1)
    dress(axes, grid="x")
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    return figure
