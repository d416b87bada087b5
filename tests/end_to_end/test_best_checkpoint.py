"""The exported student is the best in validation, by a loss or by answers; a resumed run chooses as a straight one."""

from __future__ import annotations

import json
import shutil

import pytest
from broken_runs import finished, interrupted
from safetensors.torch import load_file

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_page")]
BEST = {"eval_steps": 2, "save_steps": 2, "load_best_model_at_end": True}
BY_ANSWERS = {**BEST, "metric_for_best_model": "rouge_l", "eval_prompts": 4, "generation": {"max_new_tokens": 8}}


@pytest.fixture
def write(spec_dict, write_spec, tmp_path):
    """A student that learns a few rows by heart with a high learning rate: validation gets better, then worse."""
    teacher = json.loads((tmp_path / "teacher.json").read_text())
    data = {**spec_dict["data"], "validation": {**spec_dict["data"]["validation"], "limit": 6}}

    def write(**training):
        dropout = {"config": {**teacher["student"]["config"], "attention_dropout": 0.1}}
        section = {**spec_dict["training"], "max_steps": 12, "learning_rate": 0.1, "schedule": "constant", **training}
        changes = {"student": {**teacher["student"], **dropout}, "data": data, "training": section}
        return write_spec({**teacher, "name": "best", **changes})

    return write


def history(report, name):
    return {entry["step"]: entry[name] for entry in report.log if name in entry}


def exported(tmp_path, name):
    return load_file(tmp_path / "runs" / name / "student" / "model.safetensors")


def saved(tmp_path, name, step):
    return load_file(tmp_path / "runs" / name / f"checkpoints/checkpoint-{step}/student/student.safetensors")


def same(first, second):
    shared = first.keys() & second.keys()
    assert len(shared) > 10
    return all(first[key].equal(second[key]) for key in shared)


def test_student_of_the_lowest_validation_loss_is_exported_and_its_checkpoint_kept(write, tmp_path):
    path = write(**BEST, keep_checkpoints=1)
    report = finished(path, "run")
    losses = history(report, "eval_loss")
    assert list(losses) == [2, 4, 6, 8, 10, 12]
    best = min(losses, key=losses.get)
    assert best < 12, "the last step is the best: the test shows nothing"
    assert (report.best.step, report.best.value, report.best.metric) == (best, losses[best], "loss")
    kept = {entry.name for entry in (tmp_path / "runs/run/checkpoints").iterdir()}
    assert kept == {f"checkpoint-{best}", "checkpoint-12"}
    assert same(exported(tmp_path, "run"), saved(tmp_path, "run", best))
    assert not same(exported(tmp_path, "run"), saved(tmp_path, "run", 12))


def test_validation_by_answers_leaves_training_as_it_is(write, tmp_path):
    path = write(**BY_ANSWERS, keep_checkpoints=9)
    finished(path, "with")
    plain = [f"training.{field}=null" for field in ("eval_steps", "eval_prompts", "generation")]
    plain += ["training.load_best_model_at_end=false", "training.metric_for_best_model=loss", "data.validation=null"]
    finished(path, "without", *plain)
    for step in (2, 6, 12):
        assert same(saved(tmp_path, "with", step), saved(tmp_path, "without", step))


def test_best_by_answers_is_the_same_after_a_resume(write, tmp_path):
    path = write(**BY_ANSWERS)
    straight = finished(path, "straight")
    scores = history(straight, "eval_rouge_l")
    assert len(scores) == 6
    assert straight.best.value == max(scores.values())
    assert straight.best.step == max(scores, key=scores.get)
    interrupted(path, "broken", step=7)
    resumed = finished(path, "broken", resume=True)
    assert resumed.best == straight.best
    assert history(resumed, "eval_rouge_l") == scores
    seconds = history(resumed, "training_seconds")
    assert list(seconds) == list(scores)
    assert list(seconds.values()) == sorted({*seconds.values()}), "the time of steps goes on after the resume"
    assert same(exported(tmp_path, "broken"), exported(tmp_path, "straight"))


@pytest.mark.parametrize("often", [BEST, {"load_best_model_at_end": True}], ids=["by steps", "by epochs"])
def test_patience_is_counted_on_after_a_resume(often, write, tmp_path):
    path = write(**often, max_steps=40, early_stopping_patience=2)
    straight = finished(path, "straight")
    losses = list(history(straight, "eval_loss").values())
    assert straight.steps < straight.best.planned_steps == 40
    assert straight.best.value == losses[-3] == min(losses), "two validations without a better one"
    interrupted(path, "broken", step=straight.steps - 1)
    resumed = finished(path, "broken", resume=True)
    assert (resumed.steps, resumed.best) == (straight.steps, straight.best)
    assert list(history(resumed, "eval_loss").values()) == losses

    # Killed after it stopped, before its export: no step more.
    shutil.rmtree(tmp_path / "runs/broken/student")
    (tmp_path / "runs/broken/training.json").unlink()
    again = finished(path, "broken", resume=True)
    assert (again.steps, again.best) == (straight.steps, straight.best)
    assert same(exported(tmp_path, "broken"), exported(tmp_path, "straight"))


def test_best_checkpoint_between_two_saves_is_saved(write, tmp_path):
    report = finished(write(**{**BEST, "save_steps": 12, "eval_steps": 1}), "run")
    assert report.best.step < 12
    assert same(exported(tmp_path, "run"), saved(tmp_path, "run", report.best.step))


def test_checkpoint_whose_best_one_is_lost_is_not_resumed_from(write, tmp_path):
    path = write(**BEST, keep_checkpoints=1)
    report = finished(path, "run")
    folder = tmp_path / "runs" / "run"
    shutil.rmtree(folder / "student")
    (folder / "training.json").unlink()
    (folder / f"checkpoints/checkpoint-{report.best.step}/student/student.safetensors").unlink()
    message = f"of its best checkpoint checkpoint-{report.best.step}, student/student.safetensors is missing"
    with pytest.raises(Exception, match=message):
        finished(path, "run", resume=True)
