"""A run that is killed goes on from its last whole checkpoint and ends as if nothing had happened."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from unittest import mock

import pytest

from mta_framework import RunError
from mta_framework.registry import discover
from mta_framework.runs import pipeline
from mta_framework.runs.plugin_binding import bind
from mta_framework.training.trainer import DistillationTrainer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trained_teacher", "no_page")]
PLUGIN = Path(__file__).with_name("slow_loss.py")


def command(path, *arguments):
    return ["-m", "mta_framework", "-p", PLUGIN, "run", path, *arguments]


@pytest.fixture
def spec(spec_dict, write_spec):
    """14 steps over three epochs of 4 steps, with dropout; checkpoints at every third step, off the epochs' ends."""
    student = {"config": {**spec_dict["student"]["config"], "attention_dropout": 0.1}}
    training = {**spec_dict["training"], "max_steps": 14, "save_steps": 3, "keep_checkpoints": 2}
    changes = {"student": student, "base_loss": {"name": "slow"}, "training": training, "evaluation": None}
    return write_spec({**spec_dict, **changes})


def wait_for(path, process, seconds=120):
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.02)


def test_killed_run_resumes_to_the_same_bits(spec, tmp_path, warm_python):
    warm_python.run(command(spec, "--set", "name=straight"), check=True)
    killed = warm_python.start(command(spec, "--set", "name=killed"))
    folder = tmp_path / "runs" / "killed"
    wait_for(folder / "checkpoints" / "checkpoint-6", killed)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (folder / "student").exists()

    warm_python.run(command(spec, "--set", "name=killed", "--resume"), check=True)
    straight = tmp_path / "runs" / "straight" / "student" / "model.safetensors"
    assert (folder / "student" / "model.safetensors").read_bytes() == straight.read_bytes()
    kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert kept == ["checkpoint-12", "checkpoint-14"]
    projections = [
        tmp_path / "runs" / name / "checkpoints/checkpoint-14/projections.safetensors"
        for name in ("killed", "straight")
    ]
    assert projections[0].read_bytes() == projections[1].read_bytes()


def test_half_written_checkpoint_is_not_resumed_from(spec, tmp_path, warm_python):
    folder = tmp_path / "runs" / "student" / "checkpoints"
    running = warm_python.start(command(spec))
    wait_for(folder / "checkpoint-3", running)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    (folder / "partial" / "checkpoint-6" / "student").mkdir(parents=True)
    (folder / "partial" / "checkpoint-6" / "student" / "student.safetensors").write_bytes(b"half")
    warm_python.run(command(spec, "--resume"), check=True)
    assert not (folder / "partial").exists()


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_run_that_was_killed_before_its_export_takes_no_step_more(schedule, spec_dict, write_spec, tmp_path):
    training = {**spec_dict["training"], "max_steps": 2, "schedule": schedule}
    path = write_spec({**spec_dict, "training": training, "evaluation": None})
    bound = bind(path, discover())
    whole = pipeline.run(bound)
    folder = tmp_path / "runs" / "student"
    exported = (folder / "student" / "model.safetensors").read_bytes()
    shutil.rmtree(folder / "student")
    (folder / "training.json").unlink()

    resumed = pipeline.run(bound, resume=True)
    assert (folder / "student" / "model.safetensors").read_bytes() == exported
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["checkpoint-2"]
    logs = [without_times(report.log) for report in (whole, resumed)]
    assert sum("loss" in entry for entry in logs[0]) == 2
    assert logs[0] == logs[1]


@pytest.mark.parametrize("stop", [5, 7, 9, 13])
def test_everything_in_the_log_of_a_resumed_run_is_that_of_a_straight_one(stop, spec_dict, write_spec, tmp_path):
    """Log entries every 4 steps, checkpoints every 3, epochs of 4: stops within, at and behind each of them."""
    training = {**spec_dict["training"], "max_steps": 14, "save_steps": 3, "log_steps": 4}
    plain = {"teacher": None, "base_loss": {"name": "sft"}, "alignment": None, "evaluation": None}
    tokenizer = json.loads((tmp_path / "teacher.json").read_text())["student"]["tokenizer"]
    student = {**spec_dict["student"], "tokenizer": tokenizer}
    path = write_spec({**spec_dict, **plain, "student": student, "training": training})
    original = DistillationTrainer.before_optimizer_step

    def fail(trainer):
        if trainer.state.global_step == stop:
            raise RunError("stopped")
        original(trainer)

    stopped = bind(path, discover(), ["name=stopped"])
    with mock.patch.object(DistillationTrainer, "before_optimizer_step", fail), pytest.raises(RunError):
        pipeline.run(stopped)
    pipeline.run(stopped, resume=True)
    pipeline.run(bind(path, discover(), ["name=straight"]))
    logs = [json.loads((tmp_path / "runs" / name / "training.json").read_text()) for name in ("straight", "stopped")]
    assert [entry["step"] for entry in logs[0]["history"] if "loss" in entry] == [1, 4, 8, 12]
    for log in logs:
        log["history"] = without_times(log["history"])
        assert log.pop("seconds") > 0
        log["step_time"] = list(log["step_time"])
    assert logs[0] == logs[1]


def without_times(history):
    times = {"train_runtime", "train_samples_per_second", "train_steps_per_second"}
    assert times <= history[-1].keys()
    seconds = [entry["training_seconds"] for entry in history if "eval_loss" in entry]
    assert seconds == sorted({*seconds}), "the time of steps goes on"
    times.add("training_seconds")
    return [{name: value for name, value in entry.items() if name not in times} for entry in history]


def test_a_resumed_run_saves_and_logs_as_often_as_its_spec_says_now(spec_dict, write_spec, tmp_path):
    training = {**spec_dict["training"], "max_steps": 6, "save_steps": 3, "log_steps": 3, "keep_checkpoints": 9}
    path = write_spec({**spec_dict, "training": training, "alignment": None, "evaluation": None})
    whole = pipeline.run(bind(path, discover()))
    folder = tmp_path / "runs" / "student"
    exported = (folder / "student" / "model.safetensors").read_bytes()
    shutil.rmtree(folder / "student")
    shutil.rmtree(folder / "checkpoints" / "checkpoint-6")
    (folder / "training.json").unlink()

    changes = ["training.save_steps=1", "training.log_steps=1"]
    resumed = pipeline.run(bind(path, discover(), changes), resume=True)
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {f"checkpoint-{step}" for step in (3, 4, 5, 6)}
    logged = [[entry["step"] for entry in report.log if "loss" in entry] for report in (whole, resumed)]
    assert logged == [[1, 3, 6], [1, 3, 4, 5, 6]]
    assert (folder / "student" / "model.safetensors").read_bytes() == exported


@pytest.mark.parametrize("steps", [4, 6], ids=["at the end of an epoch", "within an epoch"])
def test_run_that_was_killed_in_its_last_validation_makes_up_for_it(steps, spec_dict, write_spec):
    training = {**spec_dict["training"], "max_steps": steps, "save_steps": 2}
    path = write_spec({**spec_dict, "training": training, "alignment": None, "evaluation": None})
    whole = pipeline.run(bind(path, discover(), ["name=whole"]))
    original = DistillationTrainer.evaluate

    def evaluate(trainer, **options):
        if trainer.state.global_step == steps:
            raise RunError("killed")
        return original(trainer, **options)

    killed = bind(path, discover(), ["name=killed"])
    with mock.patch.object(DistillationTrainer, "evaluate", evaluate), pytest.raises(RunError, match="killed"):
        pipeline.run(killed)
    resumed = pipeline.run(killed, resume=True)
    for name in ("loss", "eval_loss", "eval_cross_entropy"):
        logged = [
            [(entry["step"], entry[name]) for entry in report.log if name in entry] for report in (whole, resumed)
        ]
        assert logged[0][-1][0] == steps
        assert logged[0] == logged[1]


def test_what_is_said_of_a_run_that_failed_begins_a_line_after_its_bar(spec_dict, write_spec, capfd):
    def fail(trainer, *_):
        raise RunError("a loss that is infinite")

    path = write_spec({**spec_dict, "alignment": None, "evaluation": None})
    with mock.patch.object(DistillationTrainer, "before_optimizer_step", fail), pytest.raises(RunError) as caught:
        pipeline.run(bind(path, discover()))
    print(f"The run failed: {caught.value}", file=sys.stderr)
    del caught
    gc.collect()  # an open bar would be drawn again
    bar, last = capfd.readouterr().err.splitlines()[-2:]
    assert "Training:" in bar
    assert last == "The run failed: a loss that is infinite"
