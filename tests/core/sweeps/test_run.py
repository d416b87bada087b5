"""What a sweep does in which order; the runs themselves are only pretended."""

from __future__ import annotations

import json
import os
import re
import signal
from contextlib import nullcontext
from dataclasses import dataclass, field

import pytest

from mta_framework.errors import Fault, InputError, RunError
from mta_framework.runs.inputs import contents
from mta_framework.storage import write_json, write_manifest
from mta_framework.sweeps import run as run_module
from mta_framework.sweeps.job import Job, Outcome
from mta_framework.sweeps.run import run_sweep
from mta_framework.sweeps.sweep_progress import duration


def report_of(run):
    """As much of a report as tells whose it is."""
    spec = run.spec.model_dump(mode="json")
    return {"name": run.spec.name, "spec": spec, "inputs": contents(run), "versions": {}}


@dataclass
class Pretence:
    """A runner that leaves what a finished run leaves; those that are named fail, or vanish with the exit code 0."""

    failing: tuple[str, ...] = ()
    vanishing: tuple[str, ...] = ()
    done: list[str] = field(default_factory=list)

    def outcomes(self, jobs, started):
        for job in jobs:
            job.prepare()
            started(job)
            self.done.append(job.name)
            failed = job.name in self.failing
            job.log.write_text("The run failed: on purpose\n")
            if not failed and job.name not in self.vanishing:
                job.folder.student.mkdir(exist_ok=True)
                write_json(job.folder.path / "report.json", report_of(job.run))
                write_json(job.folder.inputs, contents(job.run))
                write_manifest(job.folder.path, {"report.json": job.folder.path / "report.json"})
            yield Outcome(job, int(failed), 65.0)


@pytest.fixture
def runner(monkeypatch):
    monkeypatch.setattr(run_module.pipeline, "plan", lambda run, alone: None)
    return Pretence()


def test_teacher_is_trained_once_and_before_all_cells(sweep_dict, bound, runner):
    lines = []
    assert run_sweep(bound(sweep_dict), nullcontext(runner), False, lines.append) == []
    cells = ["KL-seed-3", "KL-seed-4", "KL-MTA-seed-3", "KL-MTA-seed-4"]
    assert runner.done == ["teacher teacher", *cells]
    assert lines[-1] == "[5/5] finished KL-MTA-seed-4 in 1 min 5 s"


def test_teachers_of_teachers_come_first_and_lost_ones_take_their_cells_along(
    sweep_dict, spec_dict, write_spec, tmp_path, bound, runner
):
    teacher = json.loads((tmp_path / "teacher.json").read_text())
    write_spec({**teacher, "name": "first"}, "first.json")
    second = {**teacher, "name": "second", "teacher": {"run": "first.json"}, "base_loss": {"name": "kl"}}
    write_spec(second, "second.json")
    sweep_dict["axes"][1] = {"name": "from", "cells": {"one": {}, "two": {"teacher.run": "second.json"}}}
    runner.failing = ("teacher second",)
    failed = run_sweep(bound(sweep_dict), nullcontext(runner), False, lambda line: None)
    assert runner.done == ["teacher teacher", "teacher first", "teacher second", "KL-one", "KL-MTA-one"]
    assert failed == ["teacher second", "KL-two", "KL-MTA-two"]


def test_failed_cell_stops_no_other_and_is_the_only_one_to_run_again(sweep_dict, bound, runner):
    runner.failing = ("KL-seed-4",)
    lines = []
    assert run_sweep(bound(sweep_dict), nullcontext(runner), False, lines.append) == ["KL-seed-4"]
    log = bound(sweep_dict).sweep.folder / "KL-seed-4" / "run.log"
    assert f"[3/5] failed KL-seed-4: The run failed: on purpose (see {log})" in lines
    with pytest.raises(InputError, match="4 of its 4 cells begun"):
        run_sweep(bound(sweep_dict), nullcontext(runner), False, lines.append)
    runner.failing, runner.done = (), []
    assert run_sweep(bound(sweep_dict), nullcontext(runner), True, lines.append) == []
    assert runner.done == ["KL-seed-4"]


def test_run_that_ends_with_0_and_without_a_report_has_failed(sweep_dict, bound, runner):
    runner.vanishing = ("teacher teacher",)
    lines = []
    failed = run_sweep(bound(sweep_dict), nullcontext(runner), False, lines.append)
    assert failed == ["teacher teacher", "KL-seed-3", "KL-seed-4", "KL-MTA-seed-3", "KL-MTA-seed-4"]
    assert runner.done == ["teacher teacher"]
    assert any("failed teacher teacher: ended with 0 before its report was written (see " in line for line in lines)


def test_report_of_an_earlier_evaluation_does_not_finish_a_run(sweep_dict, bound, runner):
    run_sweep(bound(sweep_dict), nullcontext(runner), False, lambda line: None)
    sweep_dict["set"]["evaluation.temperature"] = 1.0
    runner.vanishing = ("KL-seed-3",)
    assert run_sweep(bound(sweep_dict), nullcontext(runner), True, lambda line: None) == ["KL-seed-3"]
    assert [cell.cell.name for cell in bound(sweep_dict).cells if cell.state != "finished"] == ["KL-seed-3"]


def test_cell_that_is_evaluated_anew_is_gone_on_with_and_another_spec_is_refused(sweep_dict, bound, runner):
    run_sweep(bound(sweep_dict), nullcontext(runner), False, lambda line: None)
    runner.done.clear()
    sweep_dict["set"]["evaluation.temperature"] = 1.0
    run_sweep(bound(sweep_dict), nullcontext(runner), True, lambda line: None)
    assert runner.done == ["KL-seed-3", "KL-seed-4", "KL-MTA-seed-3", "KL-MTA-seed-4"]
    sweep_dict["set"]["training.batch_size"] = 4
    with pytest.raises(InputError, match=r"cell KL-seed-3: training\.batch_size: is not what the run in"):
        run_sweep(bound(sweep_dict), nullcontext(runner), True, lambda line: None)


def test_faults_of_the_teachers_own_run_name_its_spec(sweep_dict, bound, runner, tmp_path, monkeypatch):
    run_sweep(bound(sweep_dict), nullcontext(runner), False, lambda line: None)
    path = tmp_path / "teacher.json"
    teacher = json.loads(path.read_text())
    path.write_text(json.dumps({**teacher, "seed": 11}))
    changed = rf"(?m)^teacher\.run: {re.escape(str(path))}: seed: is not what the run in .* \(got 11\)"
    with pytest.raises(InputError, match=changed):
        run_sweep(bound(sweep_dict), nullcontext(runner), True, lambda line: None)
    path.write_text(json.dumps({**teacher, "name": "other"}))

    def plan(run, alone):
        if run.spec.name == "other":
            raise InputError([Fault("student.config", "is large (got it)", "less", "Choose.")])

    monkeypatch.setattr(run_module.pipeline, "plan", plan)
    sweep_dict["name"] = "other"
    with pytest.raises(InputError, match=rf"^teacher\.run: {re.escape(str(path))}: student\.config: is large"):
        run_sweep(bound(sweep_dict), nullcontext(runner), False, lambda line: None)


def test_new_cells_join_a_sweep_that_is_finished(sweep_dict, bound, runner):
    run_sweep(bound(sweep_dict), nullcontext(runner), False, lambda line: None)
    runner.done.clear()
    sweep_dict["axes"][1]["values"].append(5)
    run_sweep(bound(sweep_dict), nullcontext(runner), True, lambda line: None)
    assert runner.done == ["KL-seed-5", "KL-MTA-seed-5"]


def test_runs_that_others_are_at_work_on_are_waited_for_and_not_begun_again(sweep_dict, bound, runner, monkeypatch):
    """The first cell is finished by the process that is at work on it; the second is left unfinished."""
    sweep = bound(sweep_dict)
    first, second = sweep.cells[0], sweep.cells[1]
    looks = {first.folder: 3, second.folder: 2}

    def is_at_work(folder):
        looks[folder] = looks.get(folder, 0) - 1
        if folder == first.folder and looks[folder] == 0:
            list(runner.outcomes([Job(first.cell.name, first.run)], lambda job: None))
        return looks[folder] > 0

    monkeypatch.setattr(run_module, "is_at_work", is_at_work)
    lines = []
    assert run_sweep(sweep, nullcontext(runner), False, lines.append) == []
    assert lines[0] == "waiting for KL-seed-3, KL-seed-4: another process is at work there"
    assert runner.done == ["KL-seed-3", "teacher teacher", "KL-seed-4", "KL-MTA-seed-3", "KL-MTA-seed-4"]


def test_models_and_data_are_looked_at_once_for_cells_that_share_them(sweep_dict, bound, runner, monkeypatch):
    planned = []
    monkeypatch.setattr(run_module.pipeline, "plan", lambda run, alone: planned.append(run.spec.name))
    run_sweep(bound(sweep_dict), nullcontext(runner), False, lambda line: None)
    assert planned == ["teacher", "KL-seed-3", "KL-MTA-seed-3"]


def test_termination_is_taken_as_an_interruption(sweep_dict, bound, runner, monkeypatch):
    monkeypatch.setattr(run_module.pipeline, "plan", lambda run, alone: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(bound(sweep_dict), nullcontext(runner), False, lambda line: None)
    assert signal.getsignal(signal.SIGTERM) is before


def test_sweep_that_another_process_holds_is_refused(sweep_dict, bound, runner):
    from filelock import FileLock

    bound_sweep = bound(sweep_dict)
    bound_sweep.sweep.folder.mkdir(parents=True)
    with FileLock(bound_sweep.sweep.folder / ".lock"), pytest.raises(RunError, match="another process is at work"):
        run_sweep(bound_sweep, nullcontext(runner), False, lambda line: None)


def test_state_follows_the_folder(sweep_dict, bound):
    first = bound(sweep_dict).cells[0]
    assert first.state == "new"
    write_json(first.folder.spec_file, first.run.spec.model_dump(mode="json"))
    assert first.state == "begun"
    first.folder.student.mkdir()
    write_json(first.folder.path / "report.json", {**report_of(first.run), "spec": {}})
    assert first.state == "begun"
    write_json(first.folder.path / "report.json", report_of(first.run))
    assert first.state == "begun", "it was ended before the manifest listed the report"
    write_manifest(first.folder.path, {"report.json": first.folder.path / "report.json"})
    assert first.state == "finished"


def test_report_of_a_version_that_lacked_an_optional_field_finishes_a_run(sweep_dict, bound):
    first = bound(sweep_dict).cells[0]
    report = report_of(first.run)
    assert report["spec"]["data"]["train"].pop("rename_columns", "absent") is None
    first.folder.student.mkdir(parents=True)
    write_json(first.folder.spec_file, report["spec"])
    write_json(first.folder.path / "report.json", report)
    write_manifest(first.folder.path, {"report.json": first.folder.path / "report.json"})
    assert first.state == "finished"
    report["spec"]["data"]["train"]["rename_columns"] = {"a": "b"}
    write_json(first.folder.path / "report.json", report)
    write_manifest(first.folder.path, {"report.json": first.folder.path / "report.json"})
    assert first.state == "begun"


@pytest.mark.parametrize(
    ("seconds", "text"), [(59.4, "59 s"), (60, "1 min 0 s"), (3599.6, "1 h 0 min"), (7500, "2 h 5 min")]
)
def test_durations_are_reported_in_two_units(seconds, text):
    assert duration(seconds) == text
