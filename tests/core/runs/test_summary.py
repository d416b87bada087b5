"""What reports are told."""

from __future__ import annotations

import pytest

from mta_framework.registry import discover
from mta_framework.runs.plugin_binding import bind
from mta_framework.runs.summary import resolved


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
