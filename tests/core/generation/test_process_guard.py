"""Processes end with the one that started them, unless it has closed the guard."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

SCRIPT = """
import os, signal, subprocess, sys
from mta_framework.generation.process_guard import ProcessGuard

child = subprocess.Popen(["sleep", "60"], start_new_session=True)
guard = ProcessGuard([child.pid])
print(child.pid, flush=True)
if sys.argv[1] == "closed":
    guard.close()
os.kill(os.getpid(), signal.SIGKILL)
"""


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return not state.startswith("Z")


@pytest.mark.parametrize("how", ["killed", "closed"])
def test_a_process_that_is_killed_takes_the_guarded_ones_along(how):
    # Not with captured output, which the child would hold open.
    with subprocess.Popen([sys.executable, "-c", SCRIPT, how], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.wait()
        if how == "closed":
            time.sleep(0.5)
            assert is_running(pid)
            os.kill(pid, 9)
        else:
            deadline = time.monotonic() + 30
            while is_running(pid) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not is_running(pid)
