"""Figures: what they show, and that they are fit for a page."""

from __future__ import annotations

import dataclasses
import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from mta_framework import LayerPair
from mta_framework.reporting.bars import outcomes, parts
from mta_framework.reporting.figures import curve_figures, geometry_figures, layer_figure, step_figure
from mta_framework.reporting.heatmaps import heat_map
from mta_framework.reporting.intervals import Estimate, axis_of, intervals
from mta_framework.reporting.labels import label
from mta_framework.reporting.layer_map import layer_map
from mta_framework.reporting.palette import DARK, LIGHT
from mta_framework.reporting.svg import svg


def test_same_figure_gives_the_same_text_and_colours_of_the_page():
    def drawn(name):
        return svg(parts({"teacher": 1.0, "student": 3.0}, "s"), name, "a <figure>")

    assert drawn("a") == drawn("a")
    assert "var(--series-1)" in drawn("a")
    assert not [colour for colour in LIGHT.values() if colour in drawn("a")]
    root = ElementTree.fromstring(drawn("a"))
    assert root.attrib["aria-label"] == "a <figure>"
    assert "width" not in root.attrib
    ids = [
        {element.attrib["id"] for element in ElementTree.fromstring(drawn(name)).iter() if "id" in element.attrib}
        for name in "ab"
    ]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_every_reference_within_a_figure_leads_to_something():
    text = svg(heat_map([[1.0, 0.5], [0.5, 1.0]], ("a", "b"), 0.0, 1.0), "map", "a map")
    root = ElementTree.fromstring(text)
    ids = {element.attrib["id"] for element in root.iter() if "id" in element.attrib}
    found = {
        value.removeprefix("url(#").rstrip(")")
        for element in root.iter()
        for value in element.attrib.values()
        if value.startswith("url(#")
    }
    assert found <= ids


def test_text_of_others_is_no_mathematics_and_stays_on_one_line():
    assert label("a\nb\tc\x07d") == "a b c d"
    assert label("x" * 50) == "x" * 39 + "…"
    text = svg(parts({"costs $5, or $6": 1.0, "<b>&": 1.0}, "s"), "x", "x")
    shown = [
        "".join(element.itertext()) for element in ElementTree.fromstring(text).iter() if element.tag.endswith("text")
    ]
    assert "costs $5, or $6" in shown
    assert "<b>&" in shown


def test_intervals_are_drawn_where_they_are():
    rows = [Estimate("a", 2.0, (1.0, 4.0), (1.5, 2.5)), Estimate("b", 3.0, None)]
    axes = intervals(rows, axis_of(rows)).axes[0]
    drawn = [(list(line.get_xdata()), line.get_marker()) for line in axes.lines]
    assert ([1.0, 4.0], "None") in drawn
    assert ([1.5, 2.5], "|") in drawn
    assert [found for found in drawn if found[1] == "o"] == [([2.0], "o"), ([3.0], "o")]
    assert axes.get_xlim()[0] < 1.0
    assert axes.get_xlim()[1] > 4.0


def test_differences_show_zero():
    axis = axis_of([Estimate("a", 2.0, (1.0, 4.0))], zero=True)
    assert axis.low < 0 < 4 < axis.high
    drawn = intervals([Estimate("a", 2.0, (1.0, 4.0))], axis).axes[0]
    assert [0, 0] in [list(line.get_xdata()) for line in drawn.lines]


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


def test_wins_ties_and_losses_fill_the_bar():
    axes = outcomes([("row", 30, 4, 16), ("empty", 0, 0, 0)]).axes[0]
    widths = [[bar.get_width() for bar in container] for container in axes.containers]
    np.testing.assert_allclose(widths, [[0.6, 0.0], [0.08, 0.0], [0.32, 0.0]])


def test_layers_are_joined_where_they_were_compared():
    axes = layer_map([LayerPair(1, 2, "words"), LayerPair(2, 4, "phrases")], 2, 4).axes[0]
    lines = [list(line.get_xdata()) for line in axes.lines if list(line.get_ydata()) == [0, 1]]
    assert lines == [[0.25, 0.375], [0.75, 0.875]]


def test_parts_of_a_step_are_sorted_and_what_took_no_time_is_left_out(report):
    drawing = step_figure(report)
    assert "0.45 s in all" in drawing.note
    assert "generation" not in drawing.image
    assert drawing.image.index("student") < drawing.image.index("teacher")
    assert step_figure(dataclasses.replace(report, step_time={})) is None


def test_what_was_not_logged_has_no_curve(report):
    assert [drawing.title for drawing in curve_figures(report)] == [
        "loss (total)",
        "kl",
        "dsa",
        "gradient norm, before it is clipped",
        "learning rate",
    ]
    log = ({"loss": 1.0, "kl": 1.0, "grad_norm": math.nan, "step": 1},)
    assert [drawing.title for drawing in curve_figures(dataclasses.replace(report, log=log))] == ["loss"]


def test_models_without_a_count_are_as_deep_as_their_key_layers(report):
    assert "12 of the student, 48 of the teacher" in layer_figure(report).note
    assert "12 of the student, 48 of the teacher" in layer_figure(dataclasses.replace(report, models={})).note
    assert layer_figure(dataclasses.replace(report, layer_pairs=())) is None


def test_heat_maps_of_a_layer_share_their_colours(report):
    first = next(geometry_figures(report.geometry))
    assert (first.low, first.high) == ("-0.50", "1.00")
    assert first.agreement == "Agreement with the teacher over 16 texts: 0.412 before training, 0.934 after."
    unknown = dataclasses.replace(report.geometry[0], agreement_before=None)
    assert "not measured before training" in next(geometry_figures([unknown])).agreement


def luminance(colour):
    """Relative luminance by the WCAG."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("side", [LIGHT, DARK])
def test_text_and_lines_stand_out_from_the_paper(side):
    assert side.keys() == LIGHT.keys()
    for name, colour in side.items():
        brighter, darker = sorted((luminance(colour), luminance(side["paper"])), reverse=True)
        if name not in {"paper", "rule", "shade"}:
            assert (brighter + 0.05) / (darker + 0.05) >= 4.5, name
