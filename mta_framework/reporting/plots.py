"""Plots as SVG within a page: estimates with their intervals, and quantities by training step.

Colours follow the page, text stays text, and the ids of a plot are its alone.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter, MaxNLocator

from mta_framework.evaluation.training_log import Log, points, validation_points
from mta_framework.reporting.palette import FAINT, INK, LIGHT, RULE, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_WIDTH = 4.2
"""Width of a plot in inches."""

_ROW, _LINE = 0.27, 0.15
"""Height of a row of estimates in inches, and of each further line of its name."""

_NAME = 30
"""Longest line of the name of a row of estimates."""

_MOST_LINES = 4

_MANY = 25
"""Points from which on none has a marker of its own."""

_FAR = 10
"""How many times as long far rows would make an axis."""


@dataclass(frozen=True)
class Estimate:
    """A row of a plot of estimates.

    Args:
        name: Label of the row.
        value: Position of the dot.
        interval: Ends of the line; None: no line.
        single: Positions of small marks, e.g. one per seed.
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
    """The axis that plots side by side share; an arrow at its end stands for what is beyond.

    Args:
        low: Value at its left end.
        high: Value at its right end.
        ratios: Whether the axis is logarithmic; both ends are above 0 then.
        zero: Whether a line is drawn at 0, for rows that are differences.
    """

    low: float
    high: float
    ratios: bool = False
    zero: bool = False


def axis_of(*plots: Sequence[Estimate], ratios: bool = False, zero: bool = False) -> Axis:
    """An axis that holds all finite values of some plots; it is logarithmic only where all of them are above 0.

    One with a zero leaves out, of each plot, a few rows whose values are so far away that the others could not be told
    from each other.
    """
    low, high = _ends([row for rows in plots for row in (near_rows(rows) if zero else rows)], zero)
    if ratios and low > 0:
        edge = max(high / low, 1.05) ** 0.06
        return Axis(low / edge, high * edge, ratios=True)
    edge = 0.06 * (high - low) or 1.0
    return Axis(low - edge, high + edge, zero=zero)


def _ends(rows: Sequence[Estimate], zero: bool) -> tuple[float, float]:
    ends = [end for row in rows for end in row.extent if math.isfinite(end)] + [0.0] * zero
    return min(ends, default=0.0), max(ends, default=0.0)


def near_rows(rows: Sequence[Estimate]) -> Sequence[Estimate]:
    """The finite rows, in the order of their values, without those far away at either end.

    Fewer than half of them are left out, and only where that makes an axis with a zero ``_FAR`` times shorter.
    """

    def length(chosen: Sequence[Estimate]) -> float:
        low, high = _ends(chosen, zero=True)
        return high - low

    near = sorted((row for row in rows if math.isfinite(row.value)), key=lambda row: row.value)
    for count in range(len(near) - 1, len(near) // 2, -1):
        shorter = min((near[first : first + count] for first in range(len(near) - count + 1)), key=length)
        if 0 < _FAR * length(shorter) < length(near):
            near = shorter
    return near


def intervals(rows: Sequence[Estimate], axis: Axis) -> Figure:
    """Estimates as dots with their intervals, from top to bottom in the order of the rows."""
    names = [_wrapped(row.name) for row in rows]
    heights = [_ROW + _LINE * name.count("\n") for name in names]
    middles = [end - height / 2 for end, height in zip(accumulate(heights), heights, strict=True)]
    figure, axes = _figure(0.45 + sum(heights))
    if axis.zero:
        axes.axvline(0, color=INK, linewidth=1)
    for index, (row, middle) in enumerate(zip(rows, middles, strict=True)):
        colour = series(0) if axis.zero else series(index)
        if row.interval is not None:
            axes.plot(row.interval, (middle, middle), color=colour, linewidth=2.4, solid_capstyle="round")
        axes.plot(row.single, [middle] * len(row.single), color=FAINT, linestyle="", marker="|", markersize=7)
        axes.plot(row.value, middle, color=colour, marker="o", markersize=6.5)
        _draw_beyond(axes, axis, row, middle, colour)
    axes.set_yticks(middles, names)
    axes.tick_params(axis="y", pad=9)  # room for arrows
    axes.set_ylim(sum(heights) + 0.1 * _ROW, -0.1 * _ROW)
    if axis.ratios:
        axes.set_xscale("log")
        for set_formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            set_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(1.5, 0.4)))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.set_xlim(axis.low, axis.high)
    dress(axes, grid="x")
    return figure


def _draw_beyond(axes: Axes, axis: Axis, row: Estimate, middle: float, colour: str) -> None:
    """An arrow at each end of the axis that a row goes beyond; beside it the value, if that is where it would be."""
    low, high = row.extent
    for end, side, beyond in ((axis.low, -1, low < axis.low), (axis.high, 1, high > axis.high)):
        if not beyond:
            continue
        axes.plot(end, middle, color=colour, marker="<" if side < 0 else ">", markersize=6.5, clip_on=False)
        if side * (row.value - end) > 0:
            axes.annotate(
                f"{row.value:+.3g}".replace("-", "−"),
                (end, middle),
                xytext=(-7 * side, 6),  # above the row's interval, which may reach into the axis
                textcoords="offset points",
                horizontalalignment="left" if side < 0 else "right",
                verticalalignment="center",
                fontsize=9,
                color=INK,
            )


def curve(log: Log, name: str, marked_step: int | None = None) -> Figure:
    """One quantity by training step: training as a line, validation as diamonds, and a vertical line at one step."""
    figure = Figure(figsize=(_WIDTH, 2.5))
    axes = figure.add_axes((0.14, 0.19, 0.84, 0.78))  # fixed: computing a layout takes as long as drawing the plot
    steps, values = points(log, name)
    if steps:
        marker = "o" if len(steps) < _MANY else None
        axes.plot(steps, values, color=series(0), linewidth=1.6, marker=marker, markersize=3)
    axes.plot(*validation_points(log, name), color=series(1), linestyle="", marker="D", markersize=5, zorder=3)
    if marked_step is not None:
        axes.axvline(marked_step, color=FAINT, linewidth=1, linestyle=":")
    _by_step(axes)
    return figure


def label(text: str, longest: int = 40) -> str:
    """The text on one line, shortened, with nothing that a plot takes for mathematics or a control character."""
    return _no_mathematics(_shortened(_on_one_line(text), longest))


def _wrapped(name: str) -> str:
    """A label over a few lines; of a longer one the start and the end, where a difference has its baseline."""
    words = [_shortened(word, _NAME) for word in _on_one_line(name).split()]
    lines = textwrap.wrap(" ".join(words), _NAME)
    if len(lines) > _MOST_LINES:
        lines = [*lines[:2], f"… {lines[-2]}", lines[-1]]
    return _no_mathematics("\n".join(lines))


def _on_one_line(text: str) -> str:
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _no_mathematics(text: str) -> str:
    return text.replace("$", r"\$")


def svg(figure: Figure, name: str, description: str) -> Markup:
    """A plot as an element of a page.

    Args:
        figure: Plot in the light colours of the palette.
        name: Word that no other plot of the page has; the same figure and name give the same text.
        description: What the plot shows, for readers who do not see it.
    """
    text = svg_text(figure, "none", name, transparent=True)
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>|<!--.*?-->\s*", "", text, flags=re.DOTALL)  # a style speaks for the whole page
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(|href=")#', rf"\1#{name}-", text)
    for colour, value in LIGHT.items():
        text = text.replace(value, f"var(--{colour})")
    start, rest = text.split(">", 1)
    start = re.sub(r' (width|height)="[\d.]+pt"', "", start)
    return Markup(f'<svg role="img" aria-label="{escape(description)}"{start.removeprefix("<svg")}>{rest}')


def svg_text(figure: Figure, letters: Literal["none", "path"], salt: str, transparent: bool = False) -> str:
    """A plot as an SVG file.

    Args:
        figure: The plot.
        letters: ``path``: letters are drawn; ``none``: text stays text, in a font of the reader.
        salt: Text from which ids are made: the same plot and salt give the same file.
        transparent: Whether the paper is left out.
    """
    content = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": letters, "svg.hashsalt": salt}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the reader's fonts may have it
        figure.savefig(content, format="svg", transparent=transparent, metadata=_NO_METADATA)
    return content.getvalue()


def has_all_letters(figure: Figure) -> bool:
    """Whether the font of plots has a glyph for every letter of a plot."""
    font = get_font(findfont(FontProperties()))
    texts = [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]
    return all(font.get_char_index(ord(letter)) for letter in "".join("".join(texts).split()))


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _by_step(axes: Axes) -> None:
    dress(axes)
    axes.set_xlabel("step", fontsize=9, color=FAINT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))


def dress(axes: Axes, grid: str = "both") -> None:
    """Leave out the box; draw faint lines along ``grid``, an axis or both."""
    axes.tick_params(which="both", labelsize=9, colors=FAINT, length=0)
    axes.grid(axis=grid, color=RULE, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
