"""Draws the training log: the whole loss, and each of its terms on its own scale."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What transformers logs beside the loss; every other number of an entry with a loss is one of its terms.
NO_TERMS = frozenset({"loss", "learning_rate", "grad_norm", "epoch", "step", "total_flos", "runtime"})
TRAINING, VALIDATION, GRID, TEXT = "#2563a8", "#d1592b", "#e3e3e3", "#333333"
_EVAL = "eval_"
WIDEST = 3  # panels side by side

Points = tuple[list[int], list[float]]


def terms(log: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the terms in a training log, those of validation alone last, in the order of their first occurrence."""
    trained = [name for entry in log if "loss" in entry for name in entry]
    validated = [name.removeprefix(_EVAL) for entry in log for name in entry if name.startswith(_EVAL)]
    return [name for name in dict.fromkeys(trained + validated) if name not in NO_TERMS]


def points(log: Sequence[Mapping[str, Any]], name: str) -> Points:
    """Steps and values of one quantity; values that are no finite numbers are left out."""
    found = [
        (int(entry["step"]), float(entry[name]))
        for entry in log
        if "step" in entry and isinstance(entry.get(name), (int, float)) and math.isfinite(entry[name])
    ]
    return [step for step, _ in found], [value for _, value in found]


def loss_curves(log: Sequence[Mapping[str, Any]]) -> bytes | None:
    """A PNG: the loss on top, its terms below, side by side; training as lines, validation as points.

    A single term is the loss itself and gets no panel of its own.

    Returns:
        The image, or None where no loss was logged.
    """
    if not points(log, "loss")[0]:
        return None
    names = terms(log) if len(terms(log)) > 1 else []
    columns = math.ceil(len(names) / math.ceil(len(names) / WIDEST)) if names else 1
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(9, 4 + 2.6 * rows), dpi=150, layout="constrained")
    grid = figure.add_gridspec(1 + rows, columns, height_ratios=(1.4, *[1] * rows))
    top = figure.add_subplot(grid[0, :])
    _panel(top, log, "loss", "loss (total)" if names else "loss")
    if points(log, "eval_loss")[0]:
        top.legend(frameon=False, fontsize=9)
    for number, name in enumerate(names):
        _panel(figure.add_subplot(grid[1 + number // columns, number % columns]), log, name, name)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()


def _panel(axes: Axes, log: Sequence[Mapping[str, Any]], name: str, title: str) -> None:
    steps, values = points(log, name)
    if steps:
        marker = "o" if len(steps) < 25 else None
        axes.plot(steps, values, color=TRAINING, linewidth=1.6, marker=marker, markersize=3, label="training")
    validation = points(log, f"{_EVAL}{name}")
    if validation[0]:
        axes.plot(*validation, color=VALIDATION, linestyle="", marker="D", markersize=5, label="validation", zorder=3)
    axes.set_title(title, loc="left", fontsize=10, color=TEXT)
    axes.set_xlabel("step", fontsize=9, color=TEXT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8 if name == "loss" else 4))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.tick_params(labelsize=8, colors=TEXT, length=0)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
