"""Processes side by side: how many, on which devices, and that none is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mta_framework.sweeps import job as job_module
from mta_framework.sweeps.cluster import Cluster
from mta_framework.sweeps.job import Job, Outcome, end, is_at_work
from mta_framework.sweeps.pool import Pool


@pytest.fixture
def jobs(sweep_dict, bound):
    return [Job(cell.cell.name, cell.run) for cell in bound(sweep_dict).cells]


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """Runs a line of Python in place of ``mta``, one after another from the list; and keeps what was started."""
    lines, started = [], []

    def launch(arguments, log, environment):
        with log.open("ab") as output:
            process = subprocess.Popen([sys.executable, "-c", lines.pop(0)], stdout=output, env=environment)
        started.append((process, arguments, environment))
        return process

    monkeypatch.setattr("mta_framework.sweeps.pool.launch", launch)
    return lines, started


def test_each_job_runs_the_resolved_spec_of_its_folder(jobs, commands):
    lines, started = commands
    lines += ["pass"] * 4
    outcomes = list(Pool(1, [], 1).outcomes(jobs, lambda job: None))
    assert [outcome.job for outcome in outcomes] == jobs
    assert {outcome.code for outcome in outcomes} == {0}
    for job, (_, arguments, _) in zip(jobs, started, strict=True):
        assert arguments == ("run", str(job.folder.path / "spec.json"), "--resume")
        assert job.folder.spec_file.is_file()


def test_plugin_files_are_handed_on_wherever_the_run_starts(jobs, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    job = Job("x", jobs[0].run, (Path("own.py"),))
    assert job.arguments[:3] == ("-p", str(tmp_path / "own.py"), "run")


def test_no_more_run_at_once_than_there_are_places(jobs, commands):
    lines, started = commands
    lines += ["import time; time.sleep(0.3)"] * 4
    most = []

    def watch(job):
        most.append(sum(process.poll() is None for process, _, _ in started))

    list(Pool(2, [], 2).outcomes(jobs, watch))
    assert max(most) == 2


def test_devices_are_dealt_in_turn_and_freed_places_keep_theirs(jobs, commands, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    lines, started = commands
    slow, quick = "import time; time.sleep(3)", "pass"
    lines += [slow, quick, quick, quick]
    list(Pool(2, ["3", "GPU-a"], 9).outcomes(jobs, lambda job: None))
    assert [environment["CUDA_VISIBLE_DEVICES"] for _, _, environment in started] == ["3", "GPU-a", "GPU-a", "GPU-a"]
    assert {environment["OMP_NUM_THREADS"] for _, _, environment in started} == {"4"}


def test_threads_that_the_user_has_set_are_kept_and_one_place_has_all(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert Pool(2, [], 8).environment(0)["OMP_NUM_THREADS"] == "3"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert "OMP_NUM_THREADS" not in Pool(1, [], 8).environment(0)
    assert Pool(4, [], 2).environment(0)["OMP_NUM_THREADS"] == "1"


def test_processes_end_when_the_caller_gives_up(jobs, commands):
    lines, started = commands
    lines += ["import time; time.sleep(60)", "pass"] + ["import time; time.sleep(60)"] * 2
    outcomes = Pool(2, [], 2).outcomes(jobs, lambda job: None)
    assert next(outcomes).job == jobs[1]
    outcomes.close()
    assert len(started) == 2
    assert all(process.poll() is not None for process, _, _ in started)


def test_process_that_does_not_listen_is_killed(monkeypatch):
    monkeypatch.setattr("mta_framework.sweeps.job._GRACE", 0.2)
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    begun = time.monotonic()
    end([process])
    process.stdout.close()
    assert process.returncode == -9
    assert time.monotonic() - begun < 10


@pytest.mark.skipif(job_module.fcntl is None, reason="this system cannot lock an open log")
def test_run_that_a_killed_sweep_left_behind_is_at_work_until_it_ends(jobs, tmp_path):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho $$\nexec sleep 60\n")
    program.chmod(0o700)
    folder = jobs[0].folder
    assert not is_at_work(folder)
    sweep = "import os, pathlib, signal, sys\nfrom mta_framework.sweeps import job\nsys.executable = sys.argv[1]\n"
    sweep += "job.launch([], pathlib.Path(sys.argv[2]), os.environ); os.kill(os.getpid(), signal.SIGKILL)"
    ended = subprocess.run([sys.executable, "-c", sweep, str(program), str(jobs[0].log)], check=False)
    assert ended.returncode == -signal.SIGKILL
    while not (text := jobs[0].log.read_text()).endswith("\n"):
        time.sleep(0.01)
    assert is_at_work(folder)
    os.kill(int(text), signal.SIGKILL)
    while is_at_work(folder):
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("log", "code", "message"),
    [
        ("10%\r20%\rThe run failed: loss is not finite\n\n", 1, "The run failed: loss is not finite"),
        ("data.train: does not exist\n1 fault; nothing was run.\n", 2, "data.train: does not exist"),
        ("", 3, "ended with 3"),
        ("working", 0, "ended with 0 before its report was written"),
        ("working", -9, "ended by SIGKILL, as where memory runs out"),
        ("working", -15, "ended by SIGTERM"),
    ],
)
def test_failure_is_the_last_thing_that_a_run_said(log, code, message, jobs):
    jobs[0].folder.path.mkdir(parents=True)
    jobs[0].log.write_text(log)
    assert Outcome(jobs[0], code, 1.0).failure == message


class Ray:
    """A cluster of machines with so many cores and GPUs, as far as ``Cluster`` asks."""

    def __init__(self, *machines):
        self._machines = [{"CPU": float(cores)} | ({"GPU": float(gpus)} if gpus else {}) for cores, gpus in machines]

    def nodes(self):
        dead = {"Alive": False, "Resources": {}}
        return [dead, *({"Alive": True, "Resources": each} for each in self._machines)]

    def cluster_resources(self):
        return {kind: sum(each.get(kind, 0) for each in self._machines) for kind in ("CPU", "GPU")}


@pytest.mark.parametrize(
    ("machines", "slots", "cores"),
    [
        (((4, 0), (4, 0)), 1, 4),
        (((4, 0), (4, 0)), 8, 1),
        (((8, 4), (64, 0)), None, 2),
        (((16, 2), (4, 1)), None, 4),
        (((2, 4),), None, 1),
    ],
)
def test_a_task_asks_for_no_more_cores_than_a_machine_has(machines, slots, cores):
    assert Cluster(Ray(*machines), slots)._needs["num_cpus"] == cores
