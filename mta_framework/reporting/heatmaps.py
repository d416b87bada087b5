"""Draws square matrices of similarities."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from mta_framework.reporting.labels import label
from mta_framework.reporting.svg import dress

COLOURS = "viridis"
Matrix = Sequence[Sequence[float]]


def heat_map(values: Matrix, labels: Sequence[str], low: float, high: float) -> Figure:
    """One matrix; colours run from ``low`` to ``high``, the same for all that stand side by side.

    Args:
        values: Square, at least 1 x 1.
        labels: Of its rows, from the top.
        low: Value of the darkest colour.
        high: Value of the brightest colour.
    """
    figure = Figure(figsize=(4.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(values, cmap=COLOURS, vmin=low, vmax=high, interpolation="none", aspect="equal")
    axes.set_yticks(range(len(labels)), [label(text, 18) for text in labels])
    axes.set_xticks([])
    dress(axes)
    axes.grid(visible=False)
    axes.tick_params(labelsize=min(9.0, 170 / max(len(labels), 1)))
    return figure


def gradient() -> str:
    """The colours as a CSS gradient, from the lowest value to the highest."""
    colours = matplotlib.colormaps[COLOURS]
    stops = (colours(place / 8) for place in range(9))
    return f"linear-gradient(to right, {', '.join(matplotlib.colors.to_hex(stop) for stop in stops)})"
