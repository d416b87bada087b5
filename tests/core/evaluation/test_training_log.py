"""The training log as quantities."""

from __future__ import annotations

import math

from mta_framework.evaluation.training_log import loss_terms, points, share_by_student, validated_alone
from mta_framework.types.log_entries import EVAL


def test_terms_of_the_loss_are_found_in_the_log(log):
    assert loss_terms(log) == ["kl", "dsa"]
    assert points(log, "kl") == ([10, 20], [3.0, 2.0])
    assert points(log, EVAL + "loss") == ([20], [2.5])
    assert points(({"loss": math.nan, "step": 1}, {"loss": None, "step": 2}), "loss") == ([], [])


def test_health_of_responses_is_no_term_of_the_loss(log):
    entry = {**log[0], "response_length": 12.0, "response_entropy": 1.5}
    assert loss_terms((entry, *log[1:])) == ["kl", "dsa"]


def test_single_term_is_the_loss_itself_whatever_else_is_logged():
    others = {"share_by_student": 0.5, "loss_maths": 1.0, "training_seconds": 2.0, "response_length": 3.0}
    entry = {"loss": 1.0, "kl": 1.0, "learning_rate": 1e-3, "grad_norm": 1.0, "epoch": 1.0, "step": 1, **others}
    assert loss_terms((entry,)) == []
    assert loss_terms(({**entry, "dsa": 1.0}, {"eval_loss": 1.0, "eval_cross_entropy": 1.0})) == ["kl", "dsa"]


def test_what_validation_alone_measures_is_cross_entropy_and_a_metric_of_answers(log):
    validation = {"eval_loss": 1.0, "eval_kl": 1.0, "eval_cross_entropy": 2.0, "eval_rouge_l": 3.0, "step": 20}
    assert validated_alone((*log, validation)) == ["cross_entropy", "rouge_l"]


def test_share_of_own_responses_is_their_mean():
    assert share_by_student(({"share_by_student": 0.5}, {"loss": 1.0}, {"share_by_student": 1.0})) == 0.75
    assert share_by_student(()) is None
