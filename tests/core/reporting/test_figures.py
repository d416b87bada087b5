"""The figures of a run's page: which there are, and what they say."""

from __future__ import annotations

import dataclasses
import math
import re

from mta_framework import LayerPair
from mta_framework.evaluation.report import ReportedTeacher
from mta_framework.reporting.figures import curves, layer_map, step_bars
from mta_framework.reporting.run_page import run_page


def test_parts_of_a_step_are_sorted_and_what_took_no_time_is_left_out(report):
    names, widths, values = zip(*step_bars(report), strict=True)
    assert names == ("student", "backward", "teacher")
    assert values == ("0.2 s · 44%", "0.15 s · 33%", "0.1 s · 22%")
    assert [round(width) for width in widths] == [100, 75, 50]
    assert "Mean over the steps: 0.45 s in all." in run_page(report)
    assert step_bars(dataclasses.replace(report, step_time={})) == []


def test_what_was_not_logged_has_no_curve(report):
    assert [title for title, _ in curves(report)] == [
        "loss (total)",
        "kl",
        "dsa",
        "gradient norm, before it is clipped",
        "learning rate",
    ]
    log = ({"loss": 1.0, "kl": 1.0, "grad_norm": math.nan, "step": 1},)
    assert [title for title, _ in curves(dataclasses.replace(report, log=log))] == ["loss"]


def test_what_is_no_term_of_the_loss_has_a_curve_with_a_name_of_its_own(report):
    trained = {"loss": 1.0, "kl": 1.0, "share_by_student": 0.5, "loss_maths": 1.0, "step": 1}
    log = trained, {"eval_loss": 1.0, "eval_kl": 1.0, "eval_cross_entropy": 2.0, "step": 1}
    teachers = {"maths": ReportedTeacher(1, 2, 3)}
    assert [title for title, _ in curves(dataclasses.replace(report, log=log, teachers=teachers))] == [
        "loss",
        "loss on the texts of maths",
        "cross_entropy",
        "share of texts that the student wrote",
    ]


def test_layers_are_joined_where_they_were_compared(report):
    pairs = (LayerPair(1, 2, "words"), LayerPair(2, 4, "phrases"))
    page = run_page(dataclasses.replace(report, layer_pairs=pairs, models={}))
    left, width = 65, 350
    assert re.findall(r'd="M([0-9.]+) 100L([0-9.]+) 30"', page) == [
        (f"{left + width / 4}", f"{left + width * 3 / 8:.1f}"),
        (f"{left + width * 3 / 4}", f"{left + width * 7 / 8:.1f}"),
    ]


def test_models_without_a_count_are_as_deep_as_their_key_layers(report):
    assert layer_map(report)[0] == {"student": 12, "teacher": 48}
    assert layer_map(dataclasses.replace(report, models={}))[0] == {"student": 12, "teacher": 48}
    assert layer_map(dataclasses.replace(report, layer_pairs=())) is None


def test_heat_maps_of_a_layer_share_their_colours_and_say_how_well_the_student_agrees(report):
    page = run_page(report)
    assert page.count('<p class="scale"><span>-0.50</span><i></i><span>1.00</span></p>') == len(report.geometry)
    assert "<p>Agreement with the teacher over 16 texts: 0.412 before training, 0.934 after.</p>" in page
    layer = dataclasses.replace(report.geometry[0], agreement_before=None, texts=1600)
    page = run_page(dataclasses.replace(report, geometry=(layer,)))
    assert "over 1,600 texts: not measured before training, 0.934 after." in page
    empty = dataclasses.replace(layer, **dict.fromkeys(("teacher", "before", "after"), ((math.nan,),)))
    assert "Similarities of spans" not in run_page(dataclasses.replace(report, geometry=(empty,)))


def test_cells_of_a_heat_map_have_a_colour_and_their_value(report):
    layer = dataclasses.replace(report.geometry[0], before=((math.nan,) * 3,) * 3)
    page = run_page(dataclasses.replace(report, geometry=(layer,)))
    maps = re.findall(r'<table class="heat"><caption>(.*?)</caption><tbody>(.*?)</tbody>', page, re.DOTALL)
    assert [title for title, _ in maps] == [
        "teacher, layer 24",
        "student before training, layer 6",
        "student after training, layer 6",
    ]
    cells = [re.findall(r"<td(.*?)></td>", rows) for _, rows in maps]
    assert cells[0][:3] == [' class="h32" title="1.00"', ' class="h16" title="0.25"', ' class="h0" title="-0.50"']
    assert cells[1] == [""] * 9
    assert cells[2] == cells[0]
    assert {f".h{step} {{ background: " for step in range(33)} <= set(re.findall(r"\.h\d+ { background: ", page))
