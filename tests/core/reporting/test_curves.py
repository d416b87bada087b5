"""The training log as quantities and as figures."""

from __future__ import annotations

import math

import pytest

from mta_framework.reporting.curves import loss_curves, loss_terms, overlaid
from mta_framework.reporting.training_log import points, share_by_student, terms, validation_points


def test_terms_of_the_loss_are_found_in_the_log(log):
    assert terms(log) == ["kl", "dsa"]
    assert points(log, "kl") == ([10, 20], [3.0, 2.0])
    assert validation_points(log, "loss") == ([20], [2.5])
    assert points(({"loss": math.nan, "step": 1}, {"loss": None, "step": 2}), "loss") == ([], [])


def test_single_term_is_the_loss_itself():
    assert loss_terms(({"loss": 1.0, "kl": 1.0, "step": 1},)) == []


def test_share_of_own_responses_is_their_mean():
    assert share_by_student(({"share_by_student": 0.5}, {"loss": 1.0}, {"share_by_student": 1.0})) == 0.75
    assert share_by_student(()) is None


@pytest.mark.parametrize("entries", [slice(0, 4), slice(0, 1), slice(0, 2)])
def test_any_log_with_a_loss_gives_an_image(log, entries):
    image = loss_curves(log[entries])
    assert image is not None
    assert image.startswith(b"\x89PNG")


def test_log_without_a_loss_gives_no_image(log):
    assert [loss_curves(found) for found in ((), log[2:], ({"loss": math.nan, "step": 1},))] == [None] * 3


def test_runs_of_a_row_share_a_colour_and_other_rows_have_others(log):
    rows = {f"row {number}": [log, log] for number in range(8)}
    lines = overlaid(rows, "loss").axes[0].lines
    looks = [(line.get_color(), line.get_linestyle()) for line in lines]
    assert looks[::2] == looks[1::2]
    assert len(set(looks)) == 8
