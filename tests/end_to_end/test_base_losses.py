"""A tiny whole run of each base loss that needs more than the data: teacher, student, evaluation, report."""

from __future__ import annotations

import pytest

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


def test_eopd_trains_on_own_responses_with_the_last_token_as_importance(run, spec_dict):
    alignment = {**spec_dict["alignment"], "importance": {"name": "last_token"}}
    report = run("eopd", alignment=alignment)
    assert logged(report, "share_by_student") == [1.0] * 4
    assert all(value > 0 for value in [*logged(report, "eopd"), *logged(report, "dsa"), *logged(report, "eval_eopd")])
    assert {score.model for score in report.evaluation.scores} == {"student", "teacher", "initial_student"}
