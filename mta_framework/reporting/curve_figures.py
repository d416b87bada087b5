"""The learning curves of a comparison: as blocks of its page, and as files for other documents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mta_framework.comparison.outcome_tables import value_format
from mta_framework.comparison.results import Comparison
from mta_framework.reporting.curve_plots import MOST_LINES, VIEWS, CurvePlots
from mta_framework.reporting.page import Plot
from mta_framework.reporting.plots import svg
from mta_framework.tables.table import Table, TableCell

_OVER = {"steps": "over steps", "time": "over {time}", "difference": "difference from the baseline, over steps"}


@dataclass(frozen=True)
class CurveBlock:
    """The part of a page about one quantity.

    Args:
        title: The quantity.
        plots: Its plots, one of each view, where there are few methods.
        panels: Title of a view -> a small plot of each method, where there are many.
        tables: The numbers of the plots.
    """

    title: str
    plots: list[Plot]
    panels: dict[str, list[Plot]]
    tables: list[Table]


def curve_blocks(comparison: Comparison) -> Iterator[CurveBlock]:
    """A block for each validation outcome; of few methods also for the losses of training."""
    baselines = _baselines(comparison)
    for curves in comparison.curves:
        views = [CurvePlots(curves, view, baselines) for view in VIEWS]
        drawn = [plots for plots in views if plots.lines and (curves.validation or plots.view == "steps")]
        if len(curves.rows) <= MOST_LINES:
            single = [(_over(plots), svg(plots.overlay(), _id(plots), _description(plots))) for plots in drawn]
            yield CurveBlock(curves.title, single, {}, _tables(drawn))
        elif curves.validation:
            yield CurveBlock(curves.title, [], {_over(plots): list(_panels(plots)) for plots in drawn}, _tables(drawn))


def curve_files(comparison: Comparison) -> Iterator[tuple[str, bytes]]:
    """Names and contents of images of the validation outcomes, one for each view."""
    baselines = _baselines(comparison)
    for curves in comparison.curves:
        for plots in (CurvePlots(curves, view, baselines) for view in VIEWS):
            if curves.validation and plots.lines:
                yield f"curves-{curves.name}-{plots.view}.svg", plots.standalone()


def curves_note(comparison: Comparison) -> str:
    """What lines and bands are."""
    counts = {len(curve.values) for curves in comparison.curves for curve in curves.rows.values()}
    bands = ["95 % t-intervals of the mean"] * (max(counts, default=0) > 2) + ["the range of two seeds"] * (2 in counts)
    shown = f" Bands: {' or '.join(bands)}." if bands else ""
    many = any(len(curves.rows) > MOST_LINES and curves.validation for curves in comparison.curves)
    panels = " In colour: the method. Grey, dashed: its baseline. Each plot has a scale of its own." if many else ""
    return f"Lines: means over training seeds.{shown}{panels} Differences are paired by training seed."


def _baselines(comparison: Comparison) -> dict[str, str]:
    return {row.label: row.baseline for row in comparison.rows if row.baseline is not None}


def _panels(plots: CurvePlots) -> Iterator[Plot]:
    for index, (row, figure) in enumerate(plots.panels()):
        yield row, svg(figure, f"{_id(plots)}-{index}", f"{_description(plots)}: {row}")


def _tables(drawn: list[CurvePlots]) -> list[Table]:
    return [_table(plots) for plots in drawn if plots.curves.validation]


def _table(plots: CurvePlots) -> Table:
    """A row for each method and a column for each step: the mean, below it the band and the time."""
    steps = sorted({step for line in plots.lines.values() for step in line.steps})
    shown = value_format([mean for line in plots.lines.values() for mean in line.means])
    rows: list[list[str | TableCell]] = []
    for row, line in plots.lines.items():
        cells: dict[int, TableCell] = {}
        for index, step in enumerate(line.steps):
            band = "" if line.bands is None else "[{}, {}]".format(*map(shown, line.bands[index]))
            time = f"{line.x[index]:.0f} s" if plots.view == "time" else ""
            cells[step] = TableCell(shown(line.means[index]), below=time if plots.view == "time" else band)
        rows.append([row, *(cells.get(step, "") for step in steps)])
    return Table(["step", *map(str, steps)], rows, f"{plots.curves.title}, {_over(plots)}")


def _over(plots: CurvePlots) -> str:
    return _OVER[plots.view].format(time=plots.curves.time)


def _id(plots: CurvePlots) -> str:
    return f"curves-{plots.curves.name}-{plots.view}"


def _description(plots: CurvePlots) -> str:
    return f"{plots.curves.title}, {_over(plots)}"
