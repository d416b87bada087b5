"""Plots of learning curves: a line per method with a band over its training seeds, all in one plot or one plot each."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mta_framework.comparison.results import Curve, LearningCurves
from mta_framework.evaluation.seed_statistics import seed_band
from mta_framework.reporting.palette import FAINT, INK, LIGHT, series
from mta_framework.reporting.plots import Estimate, dress, has_all_letters, label, near_rows, svg_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

View = Literal["steps", "time", "difference"]
"""What is drawn: the quantity over steps or over training time, or over steps its difference from the baseline."""

VIEWS: tuple[View, ...] = ("steps", "time", "difference")

MOST_LINES = 6
"""Methods that one plot holds; of more, each gets a small plot with its baseline."""

_LONGEST = 200
"""Most characters of a title; it may name a row."""

_LONGEST_NAME = 40
"""Most characters of a legend's line, which fit into the width of a plot."""

_MARKERS = "os^DvP"
_MOST_MARKERS = 12
_FEW_POINTS = 4
_COLUMNS = 4
_PANEL = (2.6, 2.0)
"""Width and height of a small plot in inches."""


@dataclass(frozen=True)
class Line:
    """A line of a plot.

    Args:
        steps: Step of each point.
        x: Position of each point: its step, or seconds.
        means: Mean over training seeds.
        bands: Ends of the band at each point, see ``seed_band``; None: a single seed.
    """

    steps: Sequence[int]
    x: Sequence[float]
    means: Sequence[float]
    bands: Sequence[tuple[float, float]] | None


@dataclass(frozen=True)
class CurvePlots:
    """The plots of one view of a quantity.

    Args:
        curves: Curves of the quantity.
        view: What is drawn.
        baselines: Label of a row -> label of its baseline.
    """

    curves: LearningCurves
    view: View
    baselines: Mapping[str, str]

    @functools.cached_property
    def lines(self) -> dict[str, Line]:
        """The line of each row; rows without what the view needs are left out."""
        candidates = ((row, self._line(row, curve)) for row, curve in self.curves.rows.items())
        return {row: line for row, line in candidates if line is not None}

    def overlay(self) -> Figure:
        """All lines in one plot, at most ``MOST_LINES``; a row has the same colour and marker in every view.

        A line far away from the others leaves the plot, so that they can be told apart; the legend says where it ends.
        """
        figure = Figure(figsize=(4.2, 2.5 + 0.2 * len(self.lines)), layout="constrained")
        axes = figure.add_subplot()
        drawn = [self._draw_overlaid(axes, row) for row in self.lines if row not in self._far]
        self._finish(axes)
        axes.set_ylim(axes.get_ylim())  # fixed, for what is drawn from here on
        drawn += [
            self._draw_overlaid(axes, row, f" (ends at {end:.3g})".replace("-", "−")) for row, end in self._far.items()
        ]
        axes.set_title(textwrap.fill(label(self._quantity, _LONGEST), 52), fontsize=9, color=FAINT, loc="left")
        # Named: of itself a legend leaves out lines whose labels begin with an underscore.
        names = [str(line.get_label()) for line in drawn]
        figure.legend(drawn, names, loc="outside upper left", frameon=False, fontsize=9, ncols=1)
        return figure

    def panels(self) -> Iterator[tuple[str, Figure]]:
        """A small plot of each row beside its baseline, which is grey; rows without one, if they are nobody's."""
        for row in self._panel_rows:
            figure = Figure(figsize=_PANEL)
            # Fixed: computing a layout takes as long as drawing the plot.
            self._panel(figure.add_axes((0.19, 0.2, 0.78, 0.76)), row)
            yield row, figure

    def standalone(self) -> bytes:
        """One SVG on white paper for documents: the overlay, or a grid of the small plots under their names.

        Its letters are drawn, so that they look the same everywhere, unless matplotlib's font lacks some of them.
        """
        figure = self.overlay() if len(self.curves.rows) <= MOST_LINES else self._grid()
        figure.set_facecolor(LIGHT["paper"])
        letters: Literal["none", "path"] = "path" if has_all_letters(figure) else "none"
        return svg_text(figure, letters, f"{self.curves.name}-{self.view}").encode()

    def _line(self, row: str, curve: Curve) -> Line | None:
        if self.view == "difference":
            baseline = self.curves.rows.get(self.baselines.get(row, ""))
            gaps = None if baseline is None else _difference(baseline, curve)
            return None if gaps is None else _line(gaps, gaps.steps)
        x = curve.seconds if self.view == "time" else curve.steps
        return None if x is None else _line(curve, x)

    @property
    def _quantity(self) -> str:
        return f"difference in {self.curves.title}" if self.view == "difference" else self.curves.title

    @property
    def _panel_rows(self) -> list[str]:
        """Rows that get a panel: all but baselines, which are in the panels of others."""
        beside = {self.baselines[row] for row in self.lines if row in self.baselines}
        return [row for row in self.lines if row in self.baselines or row not in beside]

    def _grid(self) -> Figure:
        count = -(-len(self._panel_rows) // _COLUMNS)
        figure = Figure(figsize=(_COLUMNS * _PANEL[0], count * (_PANEL[1] + 0.25)), layout="constrained")
        for index, row in enumerate(self._panel_rows, start=1):
            axes = figure.add_subplot(count, _COLUMNS, index)
            self._panel(axes, row)
            axes.set_title(label(row, 34), fontsize=9, color=INK, loc="left")
        figure.suptitle(label(self._quantity, _LONGEST), fontsize=9, color=FAINT, x=0.01, ha="left")
        return figure

    @functools.cached_property
    def _far(self) -> dict[str, float]:
        """Lines that are far away from the others, or end with no number, beside lines that do -> where they end."""
        rows = [Estimate(row, line.means[-1], None, tuple(line.means)) for row, line in self.lines.items()]
        near = {row.name for row in near_rows(rows)}
        return {row.name: row.value for row in rows if near and row.name not in near}

    def _draw_overlaid(self, axes: Axes, row: str, remark: str = "") -> Line2D:
        index = list(self.curves.rows).index(row)
        name = label(row, _LONGEST_NAME - len(remark)) + remark
        return self._draw(axes, row, series(index), _MARKERS[index % len(_MARKERS)], name)

    def _panel(self, axes: Axes, row: str) -> None:
        if self.view != "difference" and (baseline := self.baselines.get(row)) in self.lines:
            self._draw(axes, str(baseline), FAINT, _small_marker(self.lines[str(baseline)]), dashes="--")
        self._draw(axes, row, series(0), _small_marker(self.lines[row]))
        self._finish(axes)

    def _draw(self, axes: Axes, row: str, colour: str, marker: str, name: str = "", dashes: str = "-") -> Line2D:
        line = self.lines[row]
        x = [value / self._unit[0] for value in line.x]
        if line.bands is not None:
            lows, highs = ([band[end] for band in line.bands] for end in (0, 1))
            # With edges: where several bands overlap their ends could not be told apart.
            axes.fill_between(x, lows, highs, facecolor=(colour, 0.1), edgecolor=(colour, 0.5), linewidth=0.6)
        every = max(1, len(x) // _MOST_MARKERS)
        (drawn,) = axes.plot(x, line.means, color=colour, linewidth=1.6, linestyle=dashes, label=name)
        drawn.set(marker=marker, markersize=4, markevery=every)
        return drawn

    def _finish(self, axes: Axes) -> None:
        dress(axes)
        if self.view == "difference":
            axes.axhline(0, color=INK, linewidth=1)
        scale, sign = self._unit
        axes.set_xlabel(f"{self.curves.time}, {sign}" if self.view == "time" else "step", fontsize=9, color=FAINT)
        ends = [end / scale for line in self.lines.values() for end in (line.x[0], line.x[-1])]
        edge = 0.04 * (max(ends) - min(ends)) or 1.0
        axes.set_xlim(min(ends) - edge, max(ends) + edge)
        axes.xaxis.set_major_locator(MaxNLocator(integer=self.view != "time", nbins=4))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))

    @functools.cached_property
    def _unit(self) -> tuple[float, str]:
        """Seconds of the unit of time in which the axis is readable, and its sign; 1 for steps."""
        longest = max(line.x[-1] for line in self.lines.values())
        units = [(3600.0, "h"), (60.0, "min")] if self.view == "time" else []
        return next(((seconds, sign) for seconds, sign in units if longest > 2 * seconds), (1.0, "s"))


def _small_marker(line: Line) -> str:
    """A marker where few points make no line to speak of: in many small plots they would be most of the page."""
    return "o" if len(line.x) < _FEW_POINTS else ""


def _line(curve: Curve, x: Sequence[float]) -> Line:
    at_steps = [[values[index] for values in curve.values.values()] for index in range(len(curve.steps))]
    bands = [band for values in at_steps if (band := seed_band(values)) is not None]
    return Line(curve.steps, x, [fmean(values) for values in at_steps], bands or None)


def _difference(baseline: Curve, curve: Curve) -> Curve | None:
    """The row minus its baseline at the steps of both, by training seed; None where seeds or steps are not shared."""
    steps = [step for step in curve.steps if step in baseline.steps]
    seeds = baseline.values.keys() & curve.values.keys()
    if not steps or len(seeds) < min(len(baseline.values), len(curve.values)):
        return None

    def at_steps(side: Curve, seed: int) -> list[float]:
        by_step = dict(zip(side.steps, side.values[seed], strict=True))
        return [by_step[step] for step in steps]

    pairs = {seed: zip(at_steps(baseline, seed), at_steps(curve, seed), strict=True) for seed in sorted(seeds)}
    gaps = {seed: tuple(second - first for first, second in pair) for seed, pair in pairs.items()}
    return Curve(tuple(steps), None, gaps)
