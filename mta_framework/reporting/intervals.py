"""Draws estimates as dots with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mta_framework.reporting.labels import label
from mta_framework.reporting.palette import FAINT, INK, series
from mta_framework.reporting.svg import dress

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE = 0.27
"""Inches that a row takes."""


@dataclass(frozen=True)
class Estimate:
    """A row of the figure.

    Args:
        name: What it is called.
        value: The dot.
        interval: The line, or None.
        single: Small marks, e.g. one per seed.
    """

    name: str
    value: float
    interval: tuple[float, float] | None
    single: tuple[float, ...] = ()

    @property
    def extent(self) -> tuple[float, float]:
        """The lowest and the highest value that is drawn."""
        values = (self.value, *(self.interval or ()), *self.single)
        return min(values), max(values)


def intervals(rows: Sequence[Estimate], limits: tuple[float, float], zero: bool = False) -> Figure:
    """The figure, from top to bottom in the order of the rows.

    Args:
        rows: At least one.
        limits: Of the axis: the same for figures that stand side by side.
        zero: Whether there is a line at 0: the rows are differences.
    """
    figure = Figure(figsize=(4.2, 0.45 + _LINE * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    if zero:
        axes.axvline(0, color=INK, linewidth=1)
    for place, row in enumerate(rows):
        _draw(axes, place, row, series(0) if zero else series(place))
    axes.set_yticks(range(len(rows)), [label(row.name, 30) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(*limits)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    dress(axes, grid="x")
    return figure


def limits(rows: Sequence[Estimate], zero: bool = False) -> tuple[float, float]:
    """An axis that holds all that are numbers, and 0 where the rows are differences."""
    ends = [end for row in rows for end in row.extent if math.isfinite(end)]
    low, high = min(ends, default=0.0), max(ends, default=0.0)
    low, high = (min(low, 0.0), max(high, 0.0)) if zero else (low, high)
    edge = 0.06 * (high - low) or 1.0
    return low - edge, high + edge


def _draw(axes: Axes, place: int, row: Estimate, colour: str) -> None:
    if row.interval is not None:
        axes.plot(row.interval, (place, place), color=colour, linewidth=2.4, solid_capstyle="round")
    axes.plot(row.single, [place] * len(row.single), color=FAINT, linestyle="", marker="|", markersize=7)
    axes.plot(row.value, place, color=colour, marker="o", markersize=6.5)
