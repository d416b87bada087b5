"""The benchmark for a GPU is rehearsed on a CPU, and survives what may happen to its parts."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = ["machine", "runs", "waits", "losses", "precision", "profile", "cached-teacher", "generation", "terms"]


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def rows(limit):
    yield "Table", {"variant": "first", "limit": limit}


def failing(limit):
    yield from rows(limit)
    yield "Table", {"variant": "second", "fault": "too large"}
    raise ValueError("a shape is not known")


def ending(limit):
    yield from rows(limit)
    os._exit(3)


def endless(limit):
    yield from rows(limit)
    time.sleep(600)


@pytest.mark.slow
def test_every_part_is_rehearsed_on_a_cpu_without_a_fault(warm_python, tmp_path):
    command = [BENCHMARKS / "gpu.py", "--tiny", "--output", tmp_path, "--minutes", "30", "--commit", "abc123"]
    warm_python.run(command, check=True)
    measured = json.loads((tmp_path / "gpu.json").read_text())
    assert measured["commit"] == "abc123"
    assert [part["name"] for part in measured["parts"]] == [*NAMES, "large-vocabulary", "largest"]
    assert {
        part["name"]: part["faults"] for part in measured["parts"] if part["state"] != "done" or part["faults"]
    } == {}
    page = (tmp_path / "gpu.md").read_text()
    assert [title for part in measured["parts"] for title in part["tables"] if f"### {title}\n" not in page] == []
    resumed = measured["parts"][1]["tables"]["Runs"][1]
    assert resumed["first exit code"] == -9
    assert resumed["largest difference of a weight"] == 0


def test_parts_that_fail_end_or_never_end_keep_what_they_measured_and_the_rest_goes_on():
    from isolated_parts import Part, run_parts

    parts = [
        Part("failing", failing, 60),
        Part("ending", ending, 60),
        Part("endless", endless, 1),
        Part("rows", rows, 60),
    ]
    outcomes = list(run_parts(parts, (7,), 600))
    assert [outcome.state for outcome in outcomes] == ["failed", "failed", "stopped at its limit", "done"]
    assert [outcome.tables for outcome in outcomes] == [{"Table": [{"variant": "first", "limit": 7}]}] * 4
    assert outcomes[0].faults[0] == "Table: second: too large"
    assert outcomes[0].faults[1].startswith("ValueError: a shape is not known (end_to_end/test_gpu_benchmark.py:")
    assert outcomes[1].faults == ["its process ended with exit code 3"]


def test_parts_for_which_no_time_is_left_are_not_run():
    from isolated_parts import Part, run_parts

    outcomes = list(run_parts([Part("endless", endless, 1), Part("rows", rows, 60)], (7,), 0.5))
    assert [outcome.state for outcome in outcomes] == ["stopped at its limit", "not run"]
    assert outcomes[1].tables == {}


def test_host_waits_are_named_by_line_and_by_phase(tmp_path):
    import torch
    from host_waits import BACKWARD, STEP, by_line, recording

    source = """
import torch
class Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1
    @staticmethod
    def backward(ctx, grad):
        return grad * grad.sum().item()
def work(x):
    for _ in range(2):
        (x > 0).nonzero()
    chosen = x[x > 0]
    plain = x[torch.tensor([0])]
    Read.apply(x).sum().backward()
"""
    file = tmp_path / "mta_framework" / "waiting.py"
    file.parent.mkdir()
    file.write_text(source)
    scope = {}
    exec(compile(source, str(file), "exec"), scope)
    with recording("cpu") as waits:
        scope["work"](torch.ones(3, requires_grad=True))
    counts = {(wait.line, wait.phase): count for wait, count in by_line(waits)}
    assert counts == {
        ("mta_framework/waiting.py:12", STEP): 2,
        ("mta_framework/waiting.py:13", STEP): 1,
        ("mta_framework/waiting.py:9", BACKWARD): 1,
    }
    assert {wait.code for wait in waits} == {
        "(x > 0).nonzero()",
        "chosen = x[x > 0]",
        "return grad * grad.sum().item()",
    }
