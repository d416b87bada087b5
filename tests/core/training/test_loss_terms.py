"""Values of loss terms: means over steps, and the stop at the first NaN."""

from __future__ import annotations

import math

import pytest
import torch

from mta_framework.errors import RunError
from mta_framework.training.distiller import LossMeter, contribution
from mta_framework.training.global_counts import GlobalCounts
from mta_framework.types import LossTerm


def identity(values):
    return values


def test_terms_of_one_name_are_averaged_without_their_weights():
    meter = LossMeter()
    terms = (
        LossTerm("kl", torch.tensor(6.0), "tokens"),
        LossTerm("dsa", torch.tensor(2.0), "pairs", 0.5),
        LossTerm("dsa", torch.tensor(4.0), "pairs", 1.5),
    )
    meter.update(terms, GlobalCounts({"tokens": 3, "pairs": 2}))
    meter.reduce("step 1", identity)
    # dsa: (0.5 * 1 + 1.5 * 2) / 2; loss: 6/3 + 0.5 * 1 + 1.5 * 2
    assert meter.pop() == pytest.approx({"loss": 5.5, "kl": 2.0, "dsa": 1.75})


def test_a_term_that_is_logged_only_has_weight_zero():
    meter = LossMeter()
    meter.update(
        (LossTerm("kl", torch.tensor(6.0), "tokens"), LossTerm("gap", torch.tensor(9.0), "tokens", 0.0)),
        GlobalCounts({"tokens": 3}),
    )
    meter.reduce("step", identity)
    assert meter.pop() == pytest.approx({"loss": 2.0, "kl": 2.0, "gap": 3.0})


def test_weights_may_change_from_step_to_step():
    meter = LossMeter()
    for weight in (1.0, 4.0):
        meter.update((LossTerm("kl", torch.tensor(6.0), "tokens", weight),), GlobalCounts({"tokens": 1}))
        meter.reduce("step", identity)
    assert meter.pop() == pytest.approx({"loss": 15.0, "kl": 6.0})


def test_values_are_means_over_the_steps_since_the_last_drain():
    meter = LossMeter()
    for total in (2.0, 4.0):
        for part in (0.25, 0.75):
            meter.update((LossTerm("kl", torch.tensor(total * part), "tokens"),), GlobalCounts({"tokens": 1}))
        meter.reduce("step", identity)
    assert meter.pop() == pytest.approx({"loss": 3.0, "kl": 3.0})
    meter.update((LossTerm("kl", torch.tensor(1.0), "tokens"),), GlobalCounts({"tokens": 1}))
    meter.reduce("step", identity)
    assert meter.pop() == pytest.approx({"loss": 1.0, "kl": 1.0})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_stops_the_run_and_names_step_and_term(value):
    meter = LossMeter()
    terms = (LossTerm("kl", torch.tensor(1.0), "tokens"), LossTerm("hid", torch.tensor(value), "tokens"))
    meter.update(terms, GlobalCounts({"tokens": 1}))
    with pytest.raises(
        RunError, match=rf"^training step 7: hid is {value}\. The run stops; its last checkpoint is kept\.$"
    ):
        meter.reduce("training step 7", identity)


def test_a_unit_that_nothing_was_counted_of_adds_nothing():
    assert contribution((LossTerm("dsa", torch.tensor(0.0), "pairs", 2.0),), {"pairs": 0}).item() == 0.0
