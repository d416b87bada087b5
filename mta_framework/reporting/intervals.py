"""Draws estimates as dots with their intervals, group by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

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
        group: What it stands under; rows of a group follow each other.
        name: What it is called; the same name has the same colour in every group.
        value: The dot.
        interval: The line, or None.
        single: Small marks, e.g. one per seed.
    """

    group: str
    name: str
    value: float
    interval: tuple[float, float] | None
    single: tuple[float, ...] = ()


def intervals(rows: Sequence[Estimate], zero: bool = False) -> Figure:
    """The figure, from top to bottom in the order of the rows.

    Args:
        rows: At least one.
        zero: Whether there is a line at 0: the rows are differences.
    """
    groups = list(dict.fromkeys(row.group for row in rows))
    colours = {name: series(place) for place, name in enumerate(dict.fromkeys(row.name for row in rows))}
    lines: list[Estimate | str] = []
    for group in groups:
        lines += [group] if len(groups) > 1 else []
        lines += [row for row in rows if row.group == group]
    figure = Figure(figsize=(4.2, 0.5 + _LINE * len(lines)), layout="constrained")
    axes = figure.add_subplot()
    for place, line in enumerate(lines):
        if isinstance(line, Estimate):
            _draw(axes, place, line, colours[line.name])
    if zero:
        axes.axvline(0, color=INK, linewidth=1)
    _label(axes, lines)
    dress(axes, grid="x")
    _tell_groups(axes, lines)
    return figure


def _draw(axes: Axes, place: int, row: Estimate, colour: str) -> None:
    if row.interval is not None:
        axes.plot(row.interval, (place, place), color=colour, linewidth=2.4, solid_capstyle="round")
    axes.plot(row.single, [place] * len(row.single), color=FAINT, linestyle="", marker="|", markersize=7)
    axes.plot(row.value, place, color=colour, marker="o", markersize=6.5)


def _label(axes: Axes, lines: Sequence[Estimate | str]) -> None:
    names = [label(line.name if isinstance(line, Estimate) else line, 30) for line in lines]
    axes.set_yticks(range(len(lines)), names)
    axes.set_ylim(len(lines) - 0.4, -0.6)


def _tell_groups(axes: Axes, lines: Sequence[Estimate | str]) -> None:
    for tick, line in zip(axes.get_yticklabels(), lines, strict=True):
        tick.set_color(INK if isinstance(line, str) else FAINT)
        tick.set_fontweight("bold" if isinstance(line, str) else "normal")
