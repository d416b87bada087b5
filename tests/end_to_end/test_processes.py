"""The whole command under two gloo processes: teacher, student, evaluation and report, each once.

A launcher is tried once; other ranks start warm.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from mta_framework.evaluation.report import read_report
from mta_framework.types.log_entries import RESPONSE_HEALTH

pytestmark = [pytest.mark.slow, pytest.mark.longest]


def launch_two(path):
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launcher += ["--num_cpu_threads_per_process", "1", "--main_process_port", "0"]
    done = subprocess.run([*launcher, "-m", "mta_framework", "run", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Report:") == 1


def test_two_processes_make_the_run_that_one_makes(spec_dict, write_spec, tmp_path, warm_python):
    spec_dict["evaluation"] = {**spec_dict["evaluation"], "seeds": [10], "temperature": 0}
    path = write_spec(spec_dict)
    launch_two(path)
    warm_python.run(["-m", "mta_framework", "run", path, "--set", "name=alone"], check=True)
    shared, single = (read_report(tmp_path / "runs" / name) for name in ("student", "alone"))
    assert [report.versions["processes"] for report in (shared, single)] == ["2", "1"]
    losses = [[entry["loss"] for entry in report.log if "kl" in entry] for report in (shared, single)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert [len(report.evaluation.scores) for report in (shared, single)] == [3, 3]
    teachers = [next(s.mean for s in report.evaluation.scores if s.model == "teacher") for report in (shared, single)]
    assert teachers[0] == teachers[1]


def test_two_processes_measure_answers_and_responses_as_one_does(
    spec_dict, write_spec, tmp_path, warm_python, run_once
):
    training = {"load_best_model_at_end": True, "metric_for_best_model": "rouge_l", "eval_prompts": 5, "max_steps": 3}
    training |= {"eval_steps": 1, "save_steps": 1, "generation": {"max_new_tokens": 8}}
    spec_dict["training"] = {**spec_dict["training"], **training}
    loss = {"name": "jsd", "params": {"batches": {"policy": "on_policy", "fraction": 1.0}}}
    path = write_spec({**spec_dict, "base_loss": loss, "alignment": None, "evaluation": None})
    run_once(tmp_path / "teacher.json")
    assert warm_python.run_on_two_ranks(["-m", "mta_framework", "run", path]).count("Report:") == 1
    warm_python.run(["-m", "mta_framework", "run", path, "--set", "name=alone"], check=True)
    shared, single = (read_report(tmp_path / "runs" / name) for name in ("student", "alone"))
    assert (shared.best.step, shared.best.value) == (single.best.step, pytest.approx(single.best.value, rel=1e-4))
    names = ("eval_rouge_l", *RESPONSE_HEALTH)
    values = [[entry[name] for entry in report.log for name in names if name in entry] for report in (shared, single)]
    assert len(values[0]) == 3 * len(names)
    assert values[0] == pytest.approx(values[1], rel=1e-4)
