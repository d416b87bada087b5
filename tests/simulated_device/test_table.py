"""Every loss and alignment plugin, and the parts of a step, on a device in name alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulated_device import ADAPTERS, FAMILIES, GENERATION, POLICY_STEPS, RECORDED, STEP, rows

from mta_framework.registry import discover

PLUGINS = [(family, name) for family in FAMILIES for name in discover().names(family)]
PARTS = [("", name) for name in (ADAPTERS, RECORDED, STEP, *GENERATION, *POLICY_STEPS.values())]
RESULTS = Path(__file__).parents[2] / "docs" / "results.md"


MERGED = "chunked_loss/key_layer_states.py distinct_positions"
WAITS = {
    ("base_losses", "fdd"): {MERGED},
    ("", ADAPTERS): {MERGED},
    ("", RECORDED): {MERGED},
    ("", STEP): {
        "training/distiller.py reduce",
        "training/trainer.py before_optimizer_step",
        "training/response_health.py end_step",
    },
}
"""Where the host waits for the device in other steps than most, apart from generation."""


slow = pytest.mark.slow
"""The whole table takes a minute or two."""


@pytest.fixture(params=PLUGINS + PARTS, ids="-".join)
def row(request, table):
    return table[request.param]


@slow
def test_no_operation_meets_tensors_of_two_devices_or_fails(row):
    assert row.cases > 0
    assert row.faults == ()


@slow
def test_no_tensor_on_the_device_is_float64(row):
    assert row.float64 == ()


@slow
def test_the_host_waits_where_it_is_listed_and_nowhere_else(row):
    if row.name in GENERATION or row.name in POLICY_STEPS.values():
        others = {wait for wait in row.waits if not wait.startswith("generation/")}
        assert len(others) < len(row.waits)
        assert others == ({"training/rollouts.py _digest"} if row.name == POLICY_STEPS["pairs"] else set())
    else:
        assert set(row.waits) == WAITS.get((row.family, row.name), set())


@slow
def test_every_wait_has_a_reason(printed):
    assert "no reason" not in printed


@slow
def test_the_documented_table_is_this_one(printed):
    assert printed in RESULTS.read_text(encoding="utf-8")


def test_plugins_that_are_named_are_tried_alone_and_are_clean(models):
    tried = list(rows(models, ["kl", STEP]))
    assert [(row.family, row.name) for row in tried] == [("base_losses", "kl"), ("", STEP)]
    assert not [problem for row in tried for problem in (*row.faults, *row.float64)]
    assert [set(row.waits) for row in tried] == [set(), WAITS["", STEP]]
