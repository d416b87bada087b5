"""Every built-in base loss, and all alignment terms together, in whole runs: resumed to the same bits, exported."""

from __future__ import annotations

import json

import pytest
from transformers import AutoModelForCausalLM

from mta_framework import RunError
from mta_framework.registry import discover
from mta_framework.runs import pipeline
from mta_framework.runs.plugin_binding import bind
from mta_framework.training.trainer import DistillationTrainer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trained_teacher", "no_page")]
REGISTRY = discover()
TERMS = REGISTRY.names("alignment_terms")


def with_all_terms(spec):
    """The alignment of a spec with three key layers of words and every term."""
    layers = {"name": "proportional", "params": {"words": 3, "phrases": 0}}
    terms = [{"name": name, "weight": 0.5} for name in TERMS]
    return {**spec["alignment"], "layers": layers, "terms": terms}


@pytest.fixture(params=[*REGISTRY.names("base_losses"), "all terms"])
def method(request, spec_dict, write_spec):
    """A spec of six steps with checkpoints at every other one."""
    name = "kl" if request.param == "all terms" else request.param
    loss = REGISTRY.create("base_losses", name)
    generates = loss.batch_policy() is not None
    training = {**spec_dict["training"], "max_steps": 6, "save_steps": 2, "log_steps": 1, "batch_size": 4}
    training["generation"] = {"max_new_tokens": 6, "batch_tokens": 400} if generates else None
    changes = {"base_loss": {"name": name}, "training": training, "evaluation": None}
    if request.param == "all terms":
        changes["alignment"] = with_all_terms(spec_dict)
    return write_spec({**spec_dict, **changes})


def run(spec, name, resume=False):
    return pipeline.run(bind(spec, REGISTRY, [f"name={name}"]), resume=resume)


def test_a_run_that_breaks_off_is_resumed_to_the_same_bits_and_exports_a_plain_student(method, tmp_path, monkeypatch):
    straight, broken = tmp_path / "runs" / "straight", tmp_path / "runs" / "broken"
    run(method, "straight")
    before_optimizer_step = DistillationTrainer.before_optimizer_step

    def break_off(trainer):
        if trainer.state.global_step == 5:
            raise RunError("interrupted")
        before_optimizer_step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(DistillationTrainer, "before_optimizer_step", break_off)
        with pytest.raises(RunError, match="interrupted"):
            run(method, "broken")
    run(method, "broken", resume=True)
    weights = "student/model.safetensors"
    assert (broken / weights).read_bytes() == (straight / weights).read_bytes()
    logs = [json.loads((folder / "training.json").read_text())["history"] for folder in (straight, broken)]
    for straight_entry, broken_entry in zip(*logs, strict=True):
        names = [name for name in straight_entry if "runtime" not in name and "second" not in name]
        assert {name: broken_entry[name] for name in names} == {name: straight_entry[name] for name in names}
    _, info = AutoModelForCausalLM.from_pretrained(straight / "student", output_loading_info=True)
    assert not any(info.values())
