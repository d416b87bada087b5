"""A sweep of two methods from two seeds, side by side: it ends in a table, and goes on after it was killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from filelock import FileLock, Timeout

from mta_framework.cli import main
from mta_framework.registry import discover
from mta_framework.runs.folder import RunFolder
from mta_framework.runs.plugin_binding import bind
from mta_framework.storage import is_listed
from mta_framework.sweeps import pool

pytestmark = pytest.mark.slow
WORKER = Path(__file__).with_name("warm_sweep_worker.py")
CELLS = ["KL-seed-1", "KL-seed-2", "KL-MTA-seed-1", "KL-MTA-seed-2"]


@pytest.fixture
def sweep(spec_dict, write_spec, tmp_path):
    """Every run takes two steps."""
    training = {**spec_dict["training"], "max_steps": 2}
    teacher = json.loads((tmp_path / "teacher.json").read_text())
    write_spec({**teacher, "training": training}, "teacher.json")
    write_spec({**spec_dict, "training": training, "alignment": {"spans": {"name": "words"}}})
    return {
        "name": "tiny",
        "spec": "student.json",
        "set": {
            "evaluation.models": ["student"],
            "alignment.layers": {"name": "proportional", "params": {"phrases": 0}},
        },
        "axes": [
            {"name": "method", "cells": {"KL": {"alignment": None}, "KL + MTA": {}}},
            {"name": "seed", "field": "seed", "values": [1, 2]},
        ],
        "baseline": "KL",
    }


def finished(folder):
    """Names of the cells whose report is entered in the manifest, the last thing that a run does."""
    return {path.parent.name for path in folder.glob("*/report.json") if is_listed(path.parent, path.name)}


@pytest.mark.longest
def test_sweep_trains_its_teacher_once_and_ends_in_a_table_of_methods(sweep, write_spec, tmp_path, warm_python):
    path = write_spec(sweep, "sweep.json")
    done = warm_python.run([WORKER, "sweep", path, "--jobs", "2"])
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "sweeps" / "tiny"
    assert finished(folder) == set(CELLS)
    assert done.stdout.count("finished teacher") == done.stdout.count("started teacher") == 1
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("started KL")] == CELLS

    comparison = json.loads((folder / "comparison.json").read_text())
    rows = {row["label"]: row for row in comparison["rows"]}
    assert list(rows) == ["KL", "KL + MTA"]
    assert rows["KL + MTA"]["baseline"] == "KL"
    assert rows["KL + MTA"]["runs"] == CELLS[2:]
    cell = rows["KL"]["cells"][0]
    reports = [json.loads((folder / name / "report.json").read_text()) for name in CELLS[:2]]
    means = [report["evaluation"]["scores"][0]["mean"] for report in reports]
    assert cell["mean"] == pytest.approx(sum(means) / 2)
    assert (cell["over"], cell["count"]) == ("training seeds", 2)
    assert "<h1>tiny</h1>" in (folder / "comparison.html").read_text()
    assert str(folder / "comparison.md") in done.stdout

    # Spans were parsed for both aligned cells at once, before they started.
    assert len(list((folder / "span-cache").iterdir())) == 1
    bound = bind(folder / "KL-MTA-seed-2" / "spec.json", discover())
    assert (bound.spec.seed, RunFolder.of(bound.spec).path) == (2, folder / "KL-MTA-seed-2")
    assert "--resume" in reports[0]["command"]

    again = CliRunner().invoke(main, ["sweep", str(path), "--resume"])
    assert again.exit_code == 0
    assert "4 of 4 cells are finished" in again.output
    assert "started" not in again.output
    assert "KL + MTA" in again.output


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_sweep_ends_its_runs_and_goes_on(end, sweep, write_spec, tmp_path, warm_python, monkeypatch):
    path = write_spec(sweep, "sweep.json")
    running = warm_python.start([WORKER, "sweep", path, "--jobs", "2"], group=0)
    folder = tmp_path / "sweeps" / "tiny"
    limit = time.monotonic() + 300
    while not finished(folder):
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < limit
        time.sleep(0.05)
    # A machine that is lost has no time for goodbyes; Ctrl-C reaches the sweep, which ends its runs.
    os.killpg(running.pid, end) if end is signal.SIGKILL else running.send_signal(end)
    _, errors = running.communicate(timeout=60)
    if end is signal.SIGINT:
        assert running.returncode == 130
        assert f"mta sweep {path} --jobs 2 --resume" in errors
        assert not unfinished_runs_that_are_held(folder)
    before = {name: (folder / name / "report.json").stat().st_mtime_ns for name in finished(folder)}
    assert len(before) < len(CELLS)
    so_far = CliRunner().invoke(main, ["sweep", str(path), "--compare"])
    assert so_far.exit_code == 0, so_far.output
    assert f"Not finished, so left out: {len(CELLS) - len(before)} of {len(CELLS)} cells" in so_far.output
    assert finished(folder) == set(before)
    assert "left out" in (folder / "comparison.html").read_text()
    if end is signal.SIGKILL:
        monkeypatch.setattr(pool, "launch", warm_python.launch)
        done = CliRunner().invoke(main, ["sweep", str(path), "--resume", "--jobs", "2"])
        assert done.exit_code == 0, done.output
        assert finished(folder) == set(CELLS)
        assert {name: (folder / name / "report.json").stat().st_mtime_ns for name in before} == before
        page = (folder / "comparison.md").read_text()
        assert "KL + MTA" in page
        assert "left out" not in page


@pytest.mark.longest
def test_runs_of_a_sweep_that_was_killed_alone_go_on_and_are_waited_for(
    sweep, write_spec, tmp_path, warm_python, run_once
):
    # Its runs start as users' do, in interpreters that inherit the lock of their log.
    run_once(tmp_path / "teacher.json")
    sweep["axes"][1]["values"] = [1]
    path = write_spec(sweep, "sweep.json")
    running = warm_python.start(["-m", "mta_framework", "sweep", path])
    cell = tmp_path / "sweeps" / "tiny" / "KL-seed-1"
    limit = time.monotonic() + 300
    while not (cell / "run.log").exists():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < limit
        time.sleep(0.02)
    running.kill()
    running.communicate()
    assert not (cell / ".lock").exists(), "the run is still preparing its data"
    done = warm_python.run(["-m", "mta_framework", "sweep", path, "--resume"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "waiting for KL-seed-1: another process is at work there" in done.stdout
    assert [line for line in done.stdout.splitlines() if line.startswith("started")] == ["started KL-MTA-seed-1"]
    assert finished(tmp_path / "sweeps" / "tiny") == {"KL-seed-1", "KL-MTA-seed-1"}


def unfinished_runs_that_are_held(folder):
    held = []
    for path in folder.glob("KL*/.lock"):
        try:
            FileLock(path).acquire(blocking=False).lock.release()
        except Timeout:
            held.append(path)
    return held


def test_data_faults_of_all_cells_are_reported_before_anything_runs(sweep, write_spec, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"instruction": 1}\n')
    sweep["axes"] = [{"name": "data", "cells": {"a": {"data.train.path": "bad.jsonl"}, "b": {"data.max_length": 9000}}}]
    sweep["baseline"] = None
    result = CliRunner().invoke(main, ["sweep", str(write_spec(sweep, "sweep.json"))])
    assert result.exit_code == 2
    assert "cell a: " in result.output
    assert "bad.jsonl" in result.output
    assert "cell b: data.max_length" in result.output
    assert not (tmp_path / "runs" / "teacher").exists()


@contextmanager
def cluster():
    """A Ray cluster of this machine alone, as `ray start --head` makes it; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    # Ray's sockets have paths of at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    options = ["--num-cpus=2", "--object-store-memory=80000000", "--include-dashboard=false", "--disable-usage-stats"]
    start = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--temp-dir={folder}"]
    address_options = ["--node-ip-address=127.0.0.1", f"--port={address.rpartition(':')[2]}"]
    with (folder / "log").open("w") as log:
        head = subprocess.Popen([*start, *address_options, *options], stdout=log, stderr=log)
    try:
        limit = time.monotonic() + 120
        while "Ray runtime started" not in (folder / "log").read_text():
            assert head.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < limit
            time.sleep(0.2)
        yield address
    finally:
        head.terminate()
        head.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def test_cells_run_as_tasks_of_a_ray_cluster(sweep, write_spec, tmp_path, warm_python, run_once):
    run_once(tmp_path / "teacher.json")
    sweep["axes"][1]["values"] = [1]
    path = write_spec(sweep, "sweep.json")
    with cluster() as address:
        done = warm_python.run(["-m", "mta_framework", "sweep", path, "--ray", address])
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "sweeps" / "tiny"
    assert finished(folder) == {"KL-seed-1", "KL-MTA-seed-1"}
    assert (folder / "comparison.html").is_file()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1", "nowhere"])
def test_missing_cluster_is_an_input_error(address, sweep, write_spec):
    result = CliRunner().invoke(main, ["sweep", str(write_spec(sweep, "sweep.json")), "--ray", address])
    assert result.exit_code == 2
    assert f"--ray: is no Ray cluster (got '{address}': " in result.output
