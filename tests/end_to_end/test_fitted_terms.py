"""A term that is fitted before the first step: once per run, kept in checkpoints, and not for a plan."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from mta_framework import InputError, RunError
from mta_framework.registry import discover
from mta_framework.runs import build, pipeline
from mta_framework.runs.plugin_binding import bind
from mta_framework.training.trainer import DistillationTrainer

pytestmark = [pytest.mark.usefixtures("no_page")]
PROJECTIONS = "checkpoints/checkpoint-4/projections.safetensors"


@pytest.fixture
def spec(spec_dict, write_spec):
    params = {"projection": "pca", "rank": 4, "texts": 12}
    terms = [{"name": "hidden_mse", "weight": 1.0, "params": params}, {"name": "hid", "weight": 0.2}]
    training = {**spec_dict["training"], "save_steps": 2}
    changes = {"alignment": {**spec_dict["alignment"], "terms": terms}, "training": training, "evaluation": None}
    return write_spec({**spec_dict, **changes})


def run(spec, name, resume=False):
    return pipeline.run(bind(spec, discover(), [f"name={name}"]), resume=resume)


@pytest.mark.slow
@pytest.mark.usefixtures("trained_teacher")
def test_a_resumed_run_is_not_fitted_again_and_ends_with_the_same_bits(spec, tmp_path, monkeypatch):
    report = run(spec, "straight")
    assert min(entry["hidden_mse"] for entry in report.log if "hidden_mse" in entry) > 0

    def break_off(trainer):
        if trainer.state.global_step == 3:
            raise RunError("interrupted")
        before(trainer)

    before = DistillationTrainer.before_optimizer_step
    with monkeypatch.context() as patch:
        patch.setattr(DistillationTrainer, "before_optimizer_step", break_off)
        with pytest.raises(RunError, match="interrupted"):
            run(spec, "broken")
    monkeypatch.setattr(build, "fit_terms", lambda *arguments: pytest.fail("fitted again"))
    run(spec, "broken", resume=True)
    for file in ("student/model.safetensors", PROJECTIONS):
        contents = [(tmp_path / "runs" / name / file).read_bytes() for name in ("straight", "broken")]
        assert contents[0] == contents[1]
    bridges = load_file(tmp_path / "runs" / "straight" / PROJECTIONS)
    components = [value for name, value in bridges.items() if name.endswith("teacher_rD")]
    assert len(components) == len(report.layer_pairs)
    for component_rD in components:  # orthogonal, and still as they were fitted
        torch.testing.assert_close(component_rD @ component_rD.T, torch.eye(4))
    exported = load_file(tmp_path / "runs" / "straight" / "student" / "model.safetensors")
    assert not any("teacher_rD" in name for name in exported)


@pytest.mark.slow
@pytest.mark.usefixtures("trained_teacher")
def test_two_processes_train_with_the_bridge_that_one_fits(spec, tmp_path, warm_python):
    run(spec, "alone")
    command = ["-m", "mta_framework", "run", spec, "--set", "name=two"]
    warm_python.run_on_two_ranks(command)
    fitted = [load_file(tmp_path / "runs" / name / PROJECTIONS) for name in ("alone", "two")]
    for name, buffer in fitted[0].items():
        if "hidden_mse" in name:
            assert torch.equal(fitted[1][name], buffer)


def test_a_plan_fits_nothing_and_counts_trained_parameters_alone(spec, monkeypatch):
    monkeypatch.setattr(build, "fit_terms", lambda *arguments: pytest.fail("fitted"))
    plans = [pipeline.plan(bind(spec, discover(), [f"alignment.terms={json.dumps(terms)}"])) for terms in _TERMS]
    without, fitted = (plan.memory.bytes_by_part for plan in plans)
    # For each of the three key layers a projection of both widths to eight dimensions, and a mean; none is trained.
    bridge = 4 * 3 * (8 * (16 + 32) + 32)
    assert fitted == without | {"student weights": without["student weights"] + bridge}


_TERMS = (
    [{"name": "hid", "weight": 0.2}],
    [{"name": "hid", "weight": 0.2}, {"name": "hidden_mse", "weight": 1.0, "params": {"projection": "pca"}}],
)


def test_widths_that_no_term_can_compare_are_faults_before_training(spec):
    terms = [{"name": "dsa", "weight": 1.0}, {"name": "hidden_mse", "weight": 1.0, "params": {"projection": "none"}}]
    with pytest.raises(InputError) as refusal:
        pipeline.plan(bind(spec, discover(), [f"alignment.terms={json.dumps(terms)}"]))
    assert str(refusal.value.faults[0]) == (
        "alignment.terms.1: compares states of different widths (got 16 and 32); expected models of one width, or a "
        "projection. Set projection to linear or pca."
    )
