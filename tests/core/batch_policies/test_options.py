"""Options of the policies, as a spec gives them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from pydantic import TypeAdapter, ValidationError

from mta_framework.batch_policies import AdaptiveBatches, Batches, FixedBatches, OnPolicyBatches, PairedBatches

EVERY = (FixedBatches, AdaptiveBatches, OnPolicyBatches, PairedBatches)


@pytest.mark.parametrize("options", EVERY)
def test_options_all_have_defaults_and_survive_json(options):
    assert options.model_validate_json(options().model_dump_json(), strict=True) == options()
    assert (options().create() is None) == (options is FixedBatches)


@pytest.mark.parametrize("options", EVERY)
def test_every_option_is_described(options):
    assert all(field.get("description") for field in options.model_json_schema()["properties"].values())


@pytest.mark.parametrize("options", EVERY)
def test_each_run_gets_a_policy_of_its_own(options):
    given = options()
    assert given.create() is None or given.create() is not given.create()


@pytest.mark.parametrize("options", [FixedBatches(), AdaptiveBatches(capacity=7), OnPolicyBatches(fraction=0.2)])
def test_name_of_the_policy_chooses_the_options(options):
    batches = TypeAdapter(Batches)
    assert batches.validate_json(json.dumps(options.model_dump()), strict=True) == options


@pytest.mark.parametrize(
    ("given", "blamed"),
    [
        ({"policy": "pairs"}, "tag"),
        ({"capacity": 5}, "tag"),
        ({"policy": "fixed", "capacity": 5}, "capacity"),
        ({"policy": "adaptive", "capacity": 0}, "capacity"),
        ({"policy": "adaptive", "tolerance": -0.1}, "tolerance"),
        ({"policy": "adaptive", "increment": 0}, "increment"),
        ({"policy": "adaptive", "initial_threshold": 1.1}, "initial_threshold"),
        ({"policy": "adaptive", "temperature": 0}, "temperature"),
        ({"policy": "on_policy", "fraction": 0}, "fraction"),
        ({"policy": "on_policy", "fraction": 1.01}, "fraction"),
        ({"policy": "on_policy", "temperature": -1}, "temperature"),
    ],
)
def test_senseless_options_are_refused(given, blamed):
    with pytest.raises(ValidationError, match=blamed):
        TypeAdapter(Batches).validate_json(json.dumps(given), strict=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"every_epochs": 2, "every_steps": 5}, r"exactly one of every_epochs and every_steps .*\(got 2 and 5\)"),
        ({"every_epochs": None}, r"exactly one of every_epochs and every_steps .*\(got null and null\)"),
        ({"every_epochs": None, "every_steps": None}, "got null and null"),
        ({"every_epochs": 0}, "greater than or equal to 1"),
        ({"every_epochs": None, "every_steps": 0}, "greater than or equal to 1"),
    ],
)
def test_pairs_have_exactly_one_interval(given, message):
    with pytest.raises(ValidationError, match=message):
        PairedBatches.model_validate(given)


def test_interval_in_steps_stands_instead_of_the_epoch():
    options = PairedBatches.model_validate_json('{"every_steps": 5}', strict=True)
    assert (options.every_epochs, options.every_steps) == (None, 5)
    assert PairedBatches.model_validate_json(options.model_dump_json(), strict=True) == options


def test_policies_load_neither_torch_nor_numpy():
    code = "import sys, mta_framework.batch_policies; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
