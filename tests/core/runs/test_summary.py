"""What reports are told."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from mta_framework.registry import discover
from mta_framework.runs.integrity import read_training_log, write_training_log
from mta_framework.runs.plugin_binding import bind
from mta_framework.runs.summary import resolved
from mta_framework.storage import write_json
from mta_framework.training.train import TrainingLog


@pytest.mark.parametrize("base_loss", ["kl", "distillm", "distillm2", "fdd"])
def test_resolved_spec_has_every_option_and_is_the_same_run_again(spec_dict, write_spec, base_loss):
    spec_dict["base_loss"] = {"name": base_loss}
    if base_loss != "kl" and base_loss != "fdd":
        spec_dict["training"]["generation"] = {}
    bound = bind(write_spec(spec_dict), discover())
    spec = resolved(bound)
    assert spec["base_loss"]["params"].keys() == type(bound.base_loss).Params.model_fields.keys()
    assert spec["alignment"]["layers"]["params"].keys() == type(bound.layers).Params.model_fields.keys()
    again = bind(write_spec(spec, "again.json"), discover())
    assert resolved(again) == spec
    assert again.base_loss.params == bound.base_loss.params


def test_run_without_alignment_is_resolved_too(spec_dict, write_spec):
    bound = bind(write_spec({**spec_dict, "alignment": None}), discover())
    assert resolved(bound)["alignment"] is None


def test_the_log_of_a_training_is_standard_json_where_a_gradient_norm_is_infinite(tmp_path):
    log = TrainingLog([{"loss": 1.0, "grad_norm": math.inf, "step": 1}, {"grad_norm": math.nan, "step": 2}], 2, 1.5)
    write_training_log(tmp_path / "training.json", log)

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    history = json.loads((tmp_path / "training.json").read_text(), parse_constant=refuse)["history"]
    assert history == [{"loss": 1.0, "grad_norm": None, "step": 1}, {"grad_norm": None, "step": 2}]
    assert read_training_log(tmp_path / "training.json") == dataclasses.replace(log, history=history)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "other.json", {"value": math.nan})
    assert not (tmp_path / "other.json").exists()
