"""Runs that train on responses: resumed ones are the same, spans are aligned, and the health of responses is logged."""

from __future__ import annotations

from unittest import mock

import pytest
from broken_runs import finished, interrupted

from mta_framework.registry import discover
from mta_framework.runs import pipeline
from mta_framework.runs.plugin_binding import bind
from mta_framework.training.response_health import ResponseHealth
from mta_framework.types.log_entries import RESPONSE_HEALTH

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trained_teacher", "no_page")]

BASES = {
    "adaptive": {
        "name": "distillm",
        "params": {"batches": {"policy": "adaptive", "initial_threshold": 0.8, "capacity": 16}},
    },
    "on_policy": {"name": "jsd", "params": {"batches": {"policy": "on_policy", "fraction": 0.6}}},
    "replay of policy_gradient": {
        "name": "policy_gradient",
        "params": {"batches": {"policy": "adaptive", "initial_threshold": 0.8, "capacity": 16}},
    },
    "pairs": {
        "name": "distillm2",
        "params": {"anchor_steps": 3, "batches": {"every_epochs": None, "every_steps": 3}},
    },
}


@pytest.fixture(params=sorted(BASES))
def path(request, spec_dict, write_spec):
    """Eight steps in epochs of four, a checkpoint after every second; all kinds of batches occur."""
    generation = {"max_new_tokens": 12, "batch_tokens": 600}
    training = {**spec_dict["training"], "max_steps": 8, "save_steps": 2, "generation": generation}
    changes = {"base_loss": BASES[request.param], "training": training, "evaluation": None}
    return write_spec({**spec_dict, **changes})


def weights(tmp_path, name):
    return (tmp_path / "runs" / name / "student" / "model.safetensors").read_bytes()


def losses(report, name="loss"):
    return [entry[name] for entry in report.log if name in entry]


def test_interrupted_run_resumes_to_the_same_bits(path, tmp_path):
    straight = finished(path, "straight")
    interrupted(path, "broken", step=5)
    resumed = finished(path, "broken", resume=True)
    assert weights(tmp_path, "broken") == weights(tmp_path, "straight")
    assert losses(resumed) == losses(straight)
    assert losses(resumed, "eval_cross_entropy") == losses(straight, "eval_cross_entropy")


def test_share_of_student_responses_is_logged_and_the_alignment_sees_their_spans(path, tmp_path):
    report = finished(path, "run")
    shares = losses(report, "share_by_student")
    assert len(shares) == 8
    assert 0 < sum(shares) < 8
    page = (tmp_path / "runs" / "run" / "report.md").read_text(encoding="utf-8")
    assert f"{sum(shares) / 8:.0%} of its training texts had responses that it wrote itself." in page
    aligned = [entry["hid"] for entry in report.log if entry.get("share_by_student", 0) > 0]
    assert all(value > 0 for value in aligned)


def test_stored_responses_serve_the_next_run_of_the_same_start(spec_dict, write_spec, tmp_path):
    training = {**spec_dict["training"], "max_steps": 2, "generation": {"max_new_tokens": 8}}
    path = write_spec({**spec_dict, "base_loss": {"name": "distillm2"}, "training": training, "evaluation": None})
    finished(path, "first")
    written = sorted((tmp_path / "runs" / "response-cache").rglob("*.arrow"))
    finished(path, "second")
    assert sorted((tmp_path / "runs" / "response-cache").rglob("*.arrow")) == written
    assert weights(tmp_path, "first") == weights(tmp_path, "second")


def test_another_cut_draws_the_same_responses_in_a_later_interval_too(spec_dict, write_spec):
    """Its student has other last bits by then: what is drawn must not hang on them."""
    base_loss = {"name": "distillm2", "params": {"curriculum": False, "batches": {"every_steps": 2}}}
    training = {**spec_dict["training"], "max_steps": 3, "generation": {"max_new_tokens": 8}}
    changes = {"base_loss": base_loss, "training": training, "alignment": None, "evaluation": None}
    path = write_spec({**spec_dict, **changes})
    whole, cut = (
        pipeline.run(bind(path, discover(), [f"name=by-{size}", f"training.micro_batch_size={size}"]))
        for size in (8, 2)
    )
    assert losses(cut, "distillm2_student") == pytest.approx(losses(whole, "distillm2_student"), rel=1e-4)


def entries(report):
    return [{name: entry.get(name) for name in RESPONSE_HEALTH} for entry in report.log if "loss" in entry]


def test_health_is_logged_where_the_student_wrote_and_is_the_same_after_a_resume(path, tmp_path):
    straight = finished(path, "straight")
    for entry, share in zip(entries(straight), losses(straight, "share_by_student"), strict=True):
        assert (entry["response_length"] is None) == (share == 0)
        if share:
            assert 1 <= entry["response_length"] <= 12
            assert 0 <= entry["response_cut"] <= 1
            assert 0 < entry["response_distinct_2"] <= 1
            assert 0 < entry["response_entropy"] < 6.3  # ln 500 and some padding
            assert 0 <= entry["response_top_16_overlap"] <= 1
    interrupted(path, "broken", step=5)
    assert entries(finished(path, "broken", resume=True)) == entries(straight)


def test_measuring_changes_no_weight(path, tmp_path):
    finished(path, "measured")
    with mock.patch.object(ResponseHealth, "measure"):
        finished(path, "unmeasured")
    assert weights(tmp_path, "measured") == weights(tmp_path, "unmeasured")
