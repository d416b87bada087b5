"""Trackers get every loss term of every run of a chain, under the runs' names, through transformers' own callbacks.

Packages that need an account, a server or much else are stood in for; see ``trackers/``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = pytest.mark.slow

TERMS = {"loss", "kl", "dsa", "hid", "grad_norm", "learning_rate"}
VALIDATED = {"loss", "kl", "dsa", "hid", "cross_entropy"}
STEPS = [1, 2, 3, 4]


@pytest.fixture
def tracked(spec_dict, write_spec, tmp_path):
    """A teacher and a student are trained by one command, with all trackers; what these were told, line by line."""
    for name in ("teacher.json", "student.json"):
        spec = (
            json.loads((tmp_path / name).read_text()) if name == "teacher.json" else {**spec_dict, "evaluation": None}
        )
        trackers = ["tensorboard", "wandb", "mlflow", "trackio"]
        write_spec({**spec, "training": {**spec["training"], "trackers": trackers}}, name)
    log = tmp_path / "tracked.jsonl"
    stand_ins = str(Path(__file__).with_name("trackers"))
    environment = {**os.environ, "TRACKED": str(log), "PYTHONPATH": stand_ins}
    arguments = [sys.executable, "-m", "mta_framework", "run", str(tmp_path / "student.json")]
    subprocess.run(arguments, check=True, capture_output=True, env=environment)
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def test_every_tracker_gets_all_terms_of_each_run_under_its_name(tracked, tmp_path):
    for tracker in ("wandb", "mlflow", "trackio"):
        lines = [line for line in tracked if line[0] == tracker]
        changes = [(run, event) for _, run, event, _ in lines if event != "log"]
        assert changes == [("teacher", "begin"), ("teacher", "end"), ("student", "begin"), ("student", "end")], tracker
        logged = [values for _, run, event, values in lines if run == "student" and event == "log"]
        prefix, validated = ("", "eval_") if tracker == "mlflow" else ("train/", "eval/")
        for name in TERMS:
            steps = [values["train/global_step"] for values in logged if prefix + name in values]
            assert steps == STEPS, (tracker, name)
        assert [set(values) >= {validated + name for name in VALIDATED} for values in logged].count(True) == 1

    events = EventAccumulator(str(tmp_path / "runs" / "student" / "tensorboard")).Reload()
    for name in TERMS:
        assert [event.step for event in events.Scalars(f"train/{name}")] == STEPS
    assert [event.step for event in events.Scalars("eval/cross_entropy")] == [4]
