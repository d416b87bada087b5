"""Draws the training log: the whole loss, each of its terms on its own scale, and what else was logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mta_framework.reporting.labels import label
from mta_framework.reporting.palette import FAINT, SERIES, series
from mta_framework.reporting.svg import dress
from mta_framework.reporting.training_log import Log, points, terms, validation_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY = 25  # points that need no marker each


def loss_terms(log: Log) -> list[str]:
    """The terms that get a panel of their own."""
    found = terms(log)
    return found if len(found) > 1 else []


def panel(log: Log, name: str) -> Figure:
    """One quantity by training step, as a small figure of its own."""
    figure = Figure(figsize=(4.2, 2.5), layout="constrained")
    _draw(figure.add_subplot(), log, name, "")
    return figure


def overlaid(rows: Mapping[str, Sequence[Log]], name: str) -> Figure:
    """One quantity of several runs, with a legend above; runs of one row share a colour, the same in every figure."""
    figure = Figure(figsize=(4.2, 2.5 + 0.2 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for place, (row, logs) in enumerate(rows.items()):
        dashes = "-" if place < len(SERIES) else "--"
        drawn = [axes.plot(*points(log, name), color=series(place), linestyle=dashes, linewidth=1.5) for log in logs]
        drawn[0][0].set_label(label(row))
    _dress(axes)
    figure.legend(loc="outside upper left", frameon=False, fontsize=9, ncols=1)
    return figure


def _draw(axes: Axes, log: Log, name: str, title: str) -> None:
    steps, values = points(log, name)
    if steps:
        marker = "o" if len(steps) < MANY else None
        axes.plot(steps, values, color=series(0), linewidth=1.6, marker=marker, markersize=3, label="training")
    validation = validation_points(log, name)
    if validation[0]:
        axes.plot(*validation, color=series(1), linestyle="", marker="D", markersize=5, label="validation", zorder=3)
        if name == "loss":
            axes.legend(frameon=False, fontsize=9)
    _dress(axes, title)


def _dress(axes: Axes, title: str = "") -> None:
    dress(axes, title)
    axes.set_xlabel("step", fontsize=9, color=FAINT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
