"""A tiny whole run of each base loss that needs more than the data: teacher, student, evaluation, report."""

from __future__ import annotations

import pytest
import torch

from mta_framework import chunked_loss
from mta_framework.registry import discover
from mta_framework.runs import pipeline
from mta_framework.runs.plugin_binding import bind

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trained_teacher")]


@pytest.fixture
def run(spec_dict, write_spec):
    """Runs the usual spec with another base loss, in which the student may write."""

    def run(base_loss, **changes):
        training = {**spec_dict["training"], "generation": {"max_new_tokens": 8, "batch_tokens": 600}}
        training |= changes.pop("training", {})
        changed = {**spec_dict, "base_loss": {"name": base_loss}, "training": training, **changes}
        return pipeline.run(bind(write_spec(changed), discover()))

    return run


def logged(report, name):
    return [entry[name] for entry in report.log if name in entry]


def test_without_base_loss_the_alignment_is_the_loss_and_chooses_the_best_student(run):
    best = {"load_best_model_at_end": True, "eval_steps": 1, "save_steps": 1}
    report = run("none", training={"generation": None, **best})
    entries = [entry for entry in report.log if "dsa" in entry]
    assert len(entries) == 4
    for entry in entries:
        assert entry["loss"] == pytest.approx(2.0 * entry["dsa"] + 0.2 * entry["hid"], rel=1e-5)
    validations = [entry for entry in report.log if "eval_loss" in entry]
    for entry in validations:
        assert entry["eval_loss"] == pytest.approx(2.0 * entry["eval_dsa"] + 0.2 * entry["eval_hid"], rel=1e-5)
        assert entry["eval_cross_entropy"] > 0
    assert report.best.value == min(entry["eval_loss"] for entry in validations) < validations[0]["eval_loss"]
    assert entries[-1]["loss"] < entries[0]["loss"]
    assert not [name for entry in report.log for name in entry if "none" in name]


def test_eopd_trains_on_own_responses_with_the_last_token_as_importance(run, spec_dict):
    alignment = {**spec_dict["alignment"], "importance": {"name": "last_token"}}
    report = run("eopd", alignment=alignment)
    assert logged(report, "share_by_student") == [1.0] * 4
    assert all(value > 0 for value in [*logged(report, "eopd"), *logged(report, "dsa"), *logged(report, "eval_eopd")])
    assert {score.model for score in report.evaluation.scores} == {"student", "teacher", "initial_student"}


def test_policy_gradient_begins_at_a_ratio_of_one_and_validates_by_reverse_kl(run, monkeypatch):
    differences, values = [], chunked_loss.sampled_reverse_kl

    def watched(student_logits, teacher_logits, targets, written):
        log_q = student_logits.detach().log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
        differences.append((log_q - written)[~written.isnan()])
        return values(student_logits, teacher_logits, targets, written)

    monkeypatch.setattr(chunked_loss, "sampled_reverse_kl", watched)
    report = run("policy_gradient")
    assert logged(report, "share_by_student") == [1.0] * 4
    known = torch.cat(differences)
    assert len(known) > 50
    assert known.abs().max() < 1e-3
    assert len(logged(report, "policy_gradient")) == 4
    assert all(value > 0 for value in logged(report, "eval_policy_gradient"))
