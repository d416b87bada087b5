"""Plots: what they show, and that they are fit for a page."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import pytest

from mta_framework.reporting.palette import DARK, LIGHT, heat
from mta_framework.reporting.plots import Estimate, axis_of, curve, intervals, label, svg

ROWS = [Estimate("a", 2.0, (1.0, 4.0), (1.5, 2.5)), Estimate("b", 3.0, None)]


def test_same_plot_gives_the_same_text_and_colours_of_the_page():
    def drawn(name):
        return svg(intervals(ROWS, axis_of(ROWS)), name, "a <figure>")

    assert drawn("a") == drawn("a")
    assert "var(--series-1)" in drawn("a")
    assert not [colour for colour in LIGHT.values() if colour in drawn("a")]
    root = ElementTree.fromstring(drawn("a"))
    assert root.attrib["aria-label"] == "a <figure>"
    assert not {"width", "height"} & root.attrib.keys()
    assert "viewBox" in root.attrib
    ids = [
        {element.attrib["id"] for element in ElementTree.fromstring(drawn(name)).iter() if "id" in element.attrib}
        for name in "ab"
    ]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_every_reference_within_a_plot_leads_to_something(log):
    root = ElementTree.fromstring(svg(curve(log, "loss"), "loss", "the loss"))
    ids = {element.attrib["id"] for element in root.iter() if "id" in element.attrib}
    references = {
        value.removeprefix("url(").removeprefix("#").rstrip(")")
        for element in root.iter()
        for name, value in element.attrib.items()
        if value.startswith("url(#") or name.endswith("href")
    }
    assert references
    assert references <= ids


def test_text_of_others_is_no_mathematics_and_stays_on_one_line():
    assert label("a\nb\tc\x07d") == "a b c d"
    assert label("x" * 50) == "x" * 39 + "…"
    rows = [Estimate("costs $5, or $6", 1.0, None), Estimate("<b>&", 1.0, None)]
    text = svg(intervals(rows, axis_of(rows)), "x", "x")
    shown = [
        "".join(element.itertext()) for element in ElementTree.fromstring(text).iter() if element.tag.endswith("text")
    ]
    assert "costs $5, or $6" in shown
    assert "<b>&" in shown


LONG = "Qwen, summaries, KL + MTA, learning rate {} − Qwen, summaries, KL"


def names_of(rows):
    """The shown names of rows, and the places that they take from the top down, in pixels."""
    figure = intervals(rows, axis_of(rows, zero=True))
    figure.draw_without_rendering()
    labels = figure.axes[0].get_yticklabels()
    extents = [label.get_window_extent() for label in labels]
    return [label.get_text() for label in labels], [(extent.y1, extent.y0) for extent in extents], figure


def test_long_names_of_rows_are_shown_over_several_lines_that_do_not_touch():
    rows = [Estimate(name, 1.0, None) for name in (LONG.format(0.1), LONG.format(0.2), "b − a")]
    names, extents, figure = names_of(rows)
    assert [" ".join(name.split("\n")) for name in names] == [row.name for row in rows]
    assert max(len(line) for name in names for line in name.split("\n")) <= 30
    ends = [end for extent in extents for end in extent]
    assert ends == sorted(ends, reverse=True)
    assert ends[0] < figure.bbox.y1
    dots = [line.get_ydata()[0] for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert dots == list(figure.axes[0].get_yticks())


def test_of_a_very_long_name_the_start_and_the_end_are_shown():
    words = [f"word{index}" for index in range(60)]
    rows = [Estimate(" ".join(words), 1.0, None), Estimate("x" * 50 + " − KL", 1.0, None)]
    (name, long_word), _, _ = names_of(rows)
    lines = name.split("\n")
    assert len(lines) == 4
    assert lines[0].startswith("word0 word1")
    assert lines[2].startswith("… ")
    assert lines[3].endswith("word58 word59")
    assert long_word == "x" * 29 + "…\n− KL"


@pytest.mark.filterwarnings("error")
def test_letters_that_the_font_lacks_are_text_of_a_page_and_warn_of_nothing():
    rows = [Estimate("方法 A − 基线", 1.0, None)]
    assert "方法 A − 基线" in svg(intervals(rows, axis_of(rows)), "x", "x")


def test_curves_are_lines_and_validation_is_diamonds(log):
    training, validation = curve(log, "loss").axes[0].lines
    assert (list(training.get_xdata()), list(training.get_ydata())) == ([10, 20], [3.2, 2.2])
    assert (list(validation.get_xdata()), list(validation.get_ydata())) == ([20], [2.5])
    assert validation.get_marker() == "D"


def test_intervals_are_drawn_where_they_are():
    axes = intervals(ROWS, axis_of(ROWS)).axes[0]
    drawn = [(list(line.get_xdata()), line.get_marker()) for line in axes.lines]
    assert ([1.0, 4.0], "None") in drawn
    assert ([1.5, 2.5], "|") in drawn
    assert [line for line in drawn if line[1] == "o"] == [([2.0], "o"), ([3.0], "o")]
    assert axes.get_xlim()[0] < 1.0
    assert axes.get_xlim()[1] > 4.0


def test_a_plot_without_rows_is_empty():
    (zero,) = intervals([], axis_of([], zero=True)).axes[0].lines
    assert list(zero.get_xdata()) == [0, 0]


def test_differences_show_zero():
    axis = axis_of([Estimate("a", 2.0, (1.0, 4.0))], zero=True)
    assert axis.low < 0 < 4 < axis.high
    drawn = intervals([Estimate("a", 2.0, (1.0, 4.0))], axis).axes[0]
    assert [0, 0] in [list(line.get_xdata()) for line in drawn.lines]


NEAR = [Estimate("a", 0.1, (-0.1, 0.3)), Estimate("b", -0.2, (-0.4, 0.0)), Estimate("c", 0.2, (0.1, 0.3))]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_far_difference_is_an_arrow_with_its_value_and_the_others_keep_their_axis(sign):
    rows = [*NEAR, Estimate("far", sign * 15.6, (sign * 12.0, sign * 19.0))]
    axis = axis_of(rows, zero=True)
    assert (axis.low, axis.high) == pytest.approx((-0.4 - 0.06 * 0.7, 0.3 + 0.06 * 0.7))
    axes = intervals(rows, axis).axes[0]
    (arrow,) = [line for line in axes.lines if line.get_marker() in {"<", ">"}]
    assert (arrow.get_marker(), arrow.get_xdata()[0]) == ((">", axis.high) if sign > 0 else ("<", axis.low))
    assert arrow.get_ydata()[0] == axes.get_yticks()[3]
    assert [text.get_text() for text in axes.texts] == ["+15.6" if sign > 0 else "−15.6"]
    assert axes.get_xlim() == (axis.low, axis.high)


def test_an_interval_that_leaves_the_axis_of_the_others_has_an_arrow_and_no_number():
    axis = axis_of(NEAR, zero=True)
    axes = intervals([Estimate("wide", 0.0, (-9.0, 9.0))], axis).axes[0]
    assert [line.get_marker() for line in axes.lines if line.get_marker() in {"<", ">"}] == ["<", ">"]
    assert not axes.texts


def test_each_plot_of_an_axis_keeps_most_of_its_rows():
    far = [Estimate(name, value, (value - 1, value + 1)) for name, value in (("d", 4.0), ("e", 6.0), ("f", 8.0))]
    assert axis_of(NEAR, NEAR, far, zero=True).high > 9
    assert axis_of(NEAR, [*NEAR, Estimate("d", 15.0, None)], zero=True) == axis_of(NEAR, zero=True)


def test_two_far_differences_are_left_out_together_and_half_of_the_rows_never():
    far = [Estimate("d", 15.0, None), Estimate("e", 16.0, None)]
    assert axis_of([*NEAR, *far], zero=True) == axis_of(NEAR, zero=True)
    assert axis_of([*NEAR[:2], *far], zero=True).high > 16
    assert axis_of([NEAR[0], far[0]], zero=True).high > 15
    assert axis_of([*NEAR, Estimate("d", 5.0, None)], zero=True).high > 5
    further = [Estimate("d", 20.0, None), Estimate("e", 900.0, None), Estimate("f", math.nan, None)]
    assert axis_of([*further, *NEAR], zero=True) == axis_of(NEAR, zero=True)
    assert axis_of([*NEAR, far[0]]).high > 15


def test_axis_holds_a_single_point_and_skips_what_is_no_number():
    axis = axis_of([Estimate("a", 5.0, None), Estimate("b", math.nan, None)])
    assert (axis.low, axis.high) == (4.0, 6.0)


def test_scores_with_a_geometric_mean_are_drawn_by_their_ratios():
    rows = [Estimate("teacher", 1.0, None), Estimate("untrained", 100.0, None)]
    axis = axis_of(rows, ratios=True)
    assert axis.low == pytest.approx(100**-0.06)
    assert axis.high == pytest.approx(100**1.06)
    assert intervals(rows, axis).axes[0].get_xscale() == "log"
    assert not axis_of([Estimate("a", 0.0, None), *rows], ratios=True).ratios


def test_colours_of_a_heat_map_run_from_the_darkest_to_the_brightest():
    colours = [heat(step / 32) for step in range(33)]
    assert (colours[0], colours[16], colours[32]) == ("#440154", "#21918c", "#fde725")
    brightness = [luminance(colour) for colour in colours]
    assert brightness == sorted(brightness)


def luminance(colour):
    """Relative luminance by the WCAG."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("side", [LIGHT, DARK])
def test_text_and_lines_stand_out_from_the_paper(side):
    assert side.keys() == LIGHT.keys()
    for name, colour in side.items():
        brighter, darker = sorted((luminance(colour), luminance(side["paper"])), reverse=True)
        if name not in {"paper", "rule", "shade"}:
            assert (brighter + 0.05) / (darker + 0.05) >= 4.5, name
