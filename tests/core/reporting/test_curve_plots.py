"""Plots of learning curves: what is drawn over what, and where many methods make small plots."""

from __future__ import annotations

import dataclasses
import statistics
import xml.etree.ElementTree as ElementTree

import pytest
from scipy import stats

from mta_framework.comparison.results import Curve
from mta_framework.reporting.curve_figures import curve_files
from mta_framework.reporting.curve_plots import CurvePlots

BASELINES = {"KL + MTA": "KL"}


@pytest.fixture
def plots(comparison):
    return lambda view, **changes: CurvePlots(dataclasses.replace(comparison.curves[0], **changes), view, BASELINES)


def points(line):
    return list(line.get_xdata()), pytest.approx(list(line.get_ydata()))


def test_a_line_is_the_mean_over_seeds_with_its_t_interval(plots):
    line = plots("steps").lines["KL"]
    assert (line.steps, line.x) == ((10, 20), (10, 20))
    values = [2.0, 2.25, 1.5]
    assert line.means[1] == pytest.approx(statistics.fmean(values))
    exact = stats.t.interval(0.95, 2, loc=statistics.fmean(values), scale=stats.sem(values))
    assert line.bands[1] == pytest.approx(exact)


def test_two_seeds_have_their_range_and_one_has_no_band(plots):
    rows = {"KL": Curve((1,), None, {1: (2.0,), 2: (5.0,)}), "KL + MTA": Curve((1,), None, {1: (2.0,)})}
    lines = plots("steps", rows=rows).lines
    assert list(lines["KL"].bands) == [(2.0, 5.0)]
    assert lines["KL + MTA"].bands is None


def test_the_difference_is_taken_by_seed_at_common_steps(plots):
    curve = Curve((10, 20, 30), None, {3: (2.5, 1.25, 1.0), 2: (3.0, 2.0, 1.0), 1: (2.5, 1.75, 1.0)})
    view = plots("difference")
    view = dataclasses.replace(
        view, curves=dataclasses.replace(view.curves, rows={**view.curves.rows, "KL + MTA": curve})
    )
    assert list(view.lines) == ["KL + MTA"]
    line = view.lines["KL + MTA"]
    assert line.steps == (10, 20)
    assert line.means == pytest.approx([(-0.5 - 0.25 - 0.25) / 3, (-0.25 - 0.25 - 0.25) / 3])
    assert line.bands[1] == pytest.approx((-0.25, -0.25)), "every seed differs by the same"


def test_rows_of_other_seeds_have_no_difference(plots):
    rows = {"KL": Curve((1,), None, {1: (2.0,), 2: (3.0,)}), "KL + MTA": Curve((1,), None, {2: (2.0,), 4: (3.0,)})}
    assert plots("difference", rows=rows).lines == {}


def test_training_time_has_a_readable_unit(plots):
    axes = plots("time").overlay().axes[0]
    assert axes.get_xlabel() == "processor time, min"
    assert list(axes.lines[1].get_xdata()) == pytest.approx([2.5, 5.0])
    assert plots("steps").overlay().axes[0].get_xlabel() == "step"


@pytest.mark.parametrize("title", ["validation kl", "validation kl as of KL + MTA, measured layers, 25 % more steps"])
def test_a_plot_names_its_quantity_within_its_width(plots, title):
    for view, words in (("steps", title), ("difference", f"difference in {title}")):
        figure = plots(view, title=title).overlay()
        figure.draw_without_rendering()
        shown = figure.axes[0]._left_title
        assert shown.get_text().split() == words.split()
        assert shown.get_window_extent().x1 < figure.bbox.x1
    assert plots("steps", title=title)._grid().get_suptitle() == title


def test_a_title_that_names_a_row_is_no_mathematics(plots):
    title = r"validation kl as of KL $T=\mathcal{2$"
    drawn = plots("steps", title=title)
    drawn.overlay().draw_without_rendering()
    drawn._grid().draw_without_rendering()
    assert drawn.overlay().axes[0]._left_title.get_text().replace("\\", "") == title.replace("\\", "")


def test_a_row_has_one_colour_and_marker_in_every_view(plots):
    looks = {
        view: {line.get_label(): (line.get_color(), line.get_marker()) for line in plots(view).overlay().axes[0].lines}
        for view in ("steps", "time", "difference")
    }
    assert looks["steps"] == looks["time"]
    assert looks["steps"]["KL"] != looks["steps"]["KL + MTA"]
    assert looks["difference"]["KL + MTA"] == looks["steps"]["KL + MTA"]


def straight(*values):
    return Curve((10, 20), None, {1: values})


NEAR = {"KL": straight(3.0, 2.0), "KL + MTA": straight(3.0, 1.9), "SFT": straight(3.5, 2.5)}


@pytest.mark.parametrize(("last", "said"), [(2000.0, "2e+03"), (float("nan"), "nan"), (-90.0, "−90")])
def test_a_line_that_would_flatten_the_others_leaves_the_plot_and_the_legend_says_where_it_ends(plots, last, said):
    figure = plots("steps", rows={"astray": straight(3.0, last), **NEAR}).overlay()
    low, high = figure.axes[0].get_ylim()
    assert (low, high) == pytest.approx((1.9 - 0.05 * 1.6, 3.5 + 0.05 * 1.6)), "the range of the others and its margins"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["KL", "KL + MTA", "SFT", f"astray (ends at {said})"]


def test_methods_keep_their_colours_beside_one_that_leaves_the_plot(plots):
    def colours(rows):
        return {line.get_label(): line.get_color() for line in plots("steps", rows=rows).overlay().axes[0].lines}

    assert colours({**NEAR, "astray": straight(3.0, 2000.0)}).items() >= colours(NEAR).items()


def test_the_legend_of_a_line_that_leaves_the_plot_fits_into_its_width(plots):
    row = "KL + MTA, projection_learning_rate 0.0001, warmup 0.05"
    figure = plots("steps", rows={row: straight(3.0, -123000.0), **NEAR}).overlay()
    figure.draw_without_rendering()
    assert figure.legends[0].get_texts()[-1].get_text().endswith(" (ends at −1.23e+05)")
    assert figure.legends[0].get_window_extent().x1 <= figure.bbox.x1


@pytest.mark.parametrize(
    "rows", [{"a": straight(2.0, float("nan"))}, {"a": straight(2.0, 1.0), "b": straight(9.0, 80.0)}]
)
def test_lines_without_others_beside_them_stay_in_the_plot(plots, rows):
    figure = plots("steps", rows=rows).overlay()
    low, high = figure.axes[0].get_ylim()
    assert low < 2.0 < high
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(rows)


def test_a_line_that_is_merely_higher_stays_in_the_plot(plots):
    figure = plots("steps", rows={**NEAR, "SFT": straight(9.0, 8.0)}).overlay()
    assert figure.axes[0].get_ylim()[1] > 9.0
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["KL", "KL + MTA", "SFT"]


def test_a_small_plot_shows_a_row_beside_its_baseline(plots):
    view = plots("steps")
    ((row, figure),) = view.panels()
    assert row == "KL + MTA"
    baseline, method = figure.axes[0].lines
    assert points(baseline) == ([10, 20], [3.0, pytest.approx(23 / 12)])
    assert list(method.get_ydata()) == pytest.approx([8 / 3, 5 / 3])
    assert baseline.get_color() != method.get_color()


def test_files_are_whole_images_of_validation_outcomes(comparison):
    files = dict(curve_files(comparison))
    assert list(files) == ["curves-kl-steps.svg", "curves-kl-time.svg", "curves-kl-difference.svg"]
    for content in files.values():
        assert ElementTree.fromstring(content).tag.endswith("svg")
        assert b"var(--" not in content
    assert files == dict(curve_files(comparison)), "the same comparison gives the same images"


def test_many_rows_are_a_grid_with_a_title_each(comparison):
    curves = comparison.curves[0]
    rows = {"KL": curves.rows["KL"], **{f"method {index}": curves.rows["KL + MTA"] for index in range(7)}}
    view = CurvePlots(dataclasses.replace(curves, rows=rows), "steps", {row: "KL" for row in rows if row != "KL"})
    figure = view._grid()
    assert [axes.get_title(loc="left") for axes in figure.axes] == [f"method {index}" for index in range(7)]
    ElementTree.fromstring(view.standalone())


def named(comparison, baseline, method):
    curves = comparison.curves[0]
    return dataclasses.replace(
        curves, rows=dict(zip((baseline, method), (curves.rows["KL"], curves.rows["KL + MTA"]), strict=True))
    )


@pytest.mark.parametrize("view", ["steps", "time", "difference"])
def test_a_row_whose_label_begins_with_an_underscore_is_in_the_legend(comparison, view, caplog):
    figure = CurvePlots(named(comparison, "KL", "_MTA"), view, {"_MTA": "KL"}).overlay()
    (legend,) = figure.legends
    shown = ["_MTA"] if view == "difference" else ["KL", "_MTA"]
    assert [text.get_text() for text in legend.get_texts()] == shown
    colours = {line.get_label(): line.get_color() for line in figure.axes[0].lines}
    assert [handle.get_color() for handle in legend.legend_handles] == [colours[name] for name in shown]
    assert not caplog.messages


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("grid", [False, True])
def test_letters_that_the_font_lacks_are_text_of_an_image_and_warn_of_nothing(comparison, grid, monkeypatch):
    if grid:
        monkeypatch.setattr("mta_framework.reporting.curve_plots.MOST_LINES", 1)
    plots = CurvePlots(named(comparison, "基线", "方法 A"), "steps", {"方法 A": "基线"})
    assert "方法 A" in "".join(ElementTree.fromstring(plots.standalone()).itertext())
    assert plots.standalone() == plots.standalone()


def test_letters_that_the_font_has_are_drawn_so_that_images_look_the_same_everywhere(comparison):
    for content in dict(curve_files(comparison)).values():
        assert b"<text" not in content
