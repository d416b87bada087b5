"""Processes end with the one that started them, or before."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time

import pytest
from ended_processes import is_running, wait_until_ended
from transformers import LlamaConfig

from mta_framework.generation import process_guard
from mta_framework.generation.process_guard import ProcessGuard

GUARDED = """
import os, signal, subprocess, sys
from mta_framework.generation.process_guard import ProcessGuard

child = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], start_new_session=True)
guard = ProcessGuard()
guard.add(child.pid)
if sys.argv[1] == "ended":
    guard.end()
    print(child.wait(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""

STARTING = """
import multiprocessing, subprocess, sys, time, types
from pathlib import Path
from mta_framework.generation.vllm_process import VllmOptions, VllmProcess

def work():
    worker = subprocess.Popen(["sleep", "60"], start_new_session=True)
    print(multiprocessing.current_process().pid, worker.pid, flush=True)
    time.sleep(60)

def start(**options):
    multiprocessing.get_context("fork").Process(target=work).start()
    time.sleep(60)

sys.modules["vllm"] = types.SimpleNamespace(LLM=start)
VllmProcess("student", VllmOptions(Path(sys.argv[1]), "float32", 64, 64))
"""
"""vLLM's start hangs, with a process that it has forked and a worker of that one."""


@pytest.mark.parametrize("how", ["killed", "ended"])
def test_a_process_takes_the_guarded_ones_and_their_children_along_when_it_is_killed_or_ends_them(how):
    # Not with captured output, which the children would hold open.
    with subprocess.Popen([sys.executable, "-c", GUARDED, how], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        if how == "ended":
            assert int(parent.stdout.readline()) == -signal.SIGKILL
        parent.wait()
        assert not wait_until_ended([child])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_vllm_that_is_still_starting_ends_with_the_process_that_starts_it(how, warm_python, tmp_path):
    LlamaConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    log = tmp_path / "log"
    parent = warm_python.start(["-c", STARTING, tmp_path], log=log)
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().endswith("\n")) and time.monotonic() < deadline:
        time.sleep(0.05)
    pids = [int(pid) for pid in log.read_text().split()]
    assert len(pids) == 2
    time.sleep(50 * process_guard._INTERVAL)
    assert all(map(is_running, pids))
    parent.send_signal(how)
    parent.wait(30)
    assert not wait_until_ended(pids)


def test_a_process_that_has_taken_over_the_id_of_a_guarded_one_lives(monkeypatch):
    """Here the start that the shell notes of a process is never that which it finds in the end."""
    script = process_guard._SCRIPT.replace("start_time() { ", "start_time() { date +%N; ")
    assert script != process_guard._SCRIPT
    monkeypatch.setattr(process_guard, "_SCRIPT", script)
    with subprocess.Popen(["sleep", "60"]) as bystander:
        guard = ProcessGuard()
        guard.add(bystander.pid)
        guard.end()
        assert is_running(bystander.pid)
        bystander.kill()


def test_a_guard_that_was_ended_from_outside_is_no_error():
    guard = ProcessGuard()
    guard._shell.kill()
    guard._shell.wait()
    guard.add(os.getpid())
    guard.end()


FAILING = STARTING.replace("    time.sleep(60)\n\nsys", "    time.sleep(1)\n    raise ValueError('no memory')\n\nsys")


def test_what_a_start_of_vllm_that_fails_leaves_behind_is_ended(warm_python, tmp_path):
    LlamaConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    log = tmp_path / "log"
    assert FAILING != STARTING
    parent = warm_python.start(["-c", FAILING, tmp_path], log=log)
    assert parent.wait(120) != 0
    lines = log.read_text().splitlines()
    assert "vLLM could not be started, with the model student (got ValueError: no memory)" in lines[-1]
    assert not wait_until_ended([int(pid) for pid in lines[0].split()])


def test_a_guard_that_is_dropped_leaves_no_shell():
    guard = ProcessGuard()
    shell = guard._shell.pid
    del guard
    gc.collect()
    assert not wait_until_ended([shell])
