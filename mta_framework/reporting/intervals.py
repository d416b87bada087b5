"""Draws estimates as dots with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

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


@dataclass(frozen=True)
class Axis:
    """What figures that stand side by side share.

    Args:
        low: Its left end.
        high: Its right end.
        ratios: Whether equal lengths are equal ratios, not equal differences; all ends are above 0 then.
        zero: Whether there is a line at 0: the rows are differences.
    """

    low: float
    high: float
    ratios: bool = False
    zero: bool = False


def intervals(rows: Sequence[Estimate], axis: Axis) -> Figure:
    """The figure, from top to bottom in the order of the rows, of which there is at least one."""
    figure = Figure(figsize=(4.2, 0.45 + _LINE * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    if axis.zero:
        axes.axvline(0, color=INK, linewidth=1)
    for place, row in enumerate(rows):
        _draw(axes, place, row, series(0) if axis.zero else series(place))
    axes.set_yticks(range(len(rows)), [label(row.name, 30) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    if axis.ratios:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(1.5, 0.4)))
        axes.xaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(1.5, 0.4)))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.set_xlim(axis.low, axis.high)
    dress(axes, grid="x")
    return figure


def axis_of(rows: Sequence[Estimate], ratios: bool = False, zero: bool = False) -> Axis:
    """An axis that holds all that are numbers; see ``Axis``. Ratios are given up where a row is not above 0."""
    ends = [end for row in rows for end in row.extent if math.isfinite(end)]
    low, high = min(ends, default=0.0), max(ends, default=0.0)
    if ratios and low > 0:
        edge = max(high / low, 1.05) ** 0.06
        return Axis(low / edge, high * edge, ratios=True)
    low, high = (min(low, 0.0), max(high, 0.0)) if zero else (low, high)
    edge = 0.06 * (high - low) or 1.0
    return Axis(low - edge, high + edge, zero=zero)


def _draw(axes: Axes, place: int, row: Estimate, colour: str) -> None:
    if row.interval is not None:
        axes.plot(row.interval, (place, place), color=colour, linewidth=2.4, solid_capstyle="round")
    axes.plot(row.single, [place] * len(row.single), color=FAINT, linestyle="", marker="|", markersize=7)
    axes.plot(row.value, place, color=colour, marker="o", markersize=6.5)
