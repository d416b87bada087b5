"""Whether processes have ended that are not children of the test."""

from __future__ import annotations

import time
from collections.abc import Iterable

import psutil


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it is more than an entry that nobody has asked for."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_ended(pids: Iterable[int]) -> list[int]:
    """Wait up to half a minute for processes to end; returns those that still run."""
    running, deadline = list(pids), time.monotonic() + 30
    while running and time.monotonic() < deadline:
        time.sleep(0.05)
        running = [pid for pid in running if is_running(pid)]
    return running
