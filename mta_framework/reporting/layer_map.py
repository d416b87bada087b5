"""Draws which layer of the student is compared with which layer of the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from mta_framework.reporting.labels import label
from mta_framework.reporting.palette import FAINT, RULE, series
from mta_framework.reporting.svg import dress
from mta_framework.types import LayerPair

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STUDENT, TEACHER = 0, 1


def layer_map(pairs: Sequence[LayerPair], student_layers: int, teacher_layers: int) -> Figure:
    """The student's layers in a row below, the teacher's above, first to last, and a line for every pair.

    Args:
        pairs: At least one.
        student_layers: How many there are.
        teacher_layers: How many there are.
    """
    figure = Figure(figsize=(4.2, 2.3), layout="constrained")
    axes = figure.add_subplot()
    for row, count in ((STUDENT, student_layers), (TEACHER, teacher_layers)):
        axes.plot(_places(count), [row] * count, color=RULE, linestyle="", marker="s", markersize=min(9, 150 / count))
    for number, granularity in enumerate(dict.fromkeys(pair.granularity for pair in pairs)):
        own = [pair for pair in pairs if pair.granularity == granularity]
        for pair in own:
            ends = _places(student_layers)[pair.student - 1], _places(teacher_layers)[pair.teacher - 1]
            told = label(granularity) if pair is own[0] else None
            axes.plot(ends, (STUDENT, TEACHER), color=series(number), linewidth=2, marker="s", markersize=7, label=told)
            _number(axes, pair.student, (ends[0], STUDENT), -16)
            _number(axes, pair.teacher, (ends[1], TEACHER), 9)
    axes.set_yticks((STUDENT, TEACHER), ("student", "teacher"))
    axes.set_xticks([])
    axes.set_ylim(-0.35, 1.3)
    dress(axes)
    axes.grid(visible=False)
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    return figure


def _number(axes: Axes, layer: int, place: tuple[float, float], above: int) -> None:
    axes.annotate(str(layer), place, (0, above), textcoords="offset points", ha="center", fontsize=9, color=FAINT)


def _places(count: int) -> list[float]:
    """Layers from the first to the last, spread over the same width whatever their number."""
    return [(layer + 0.5) / count for layer in range(count)]
