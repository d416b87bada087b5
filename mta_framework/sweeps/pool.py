"""Runs jobs on this machine, some side by side, each with its share of devices and cores."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence

from mta_framework.sweeps.job import PAUSE, Job, Outcome, end, launch


class Pool:
    """So many places, at each of which one process works at a time.

    Args:
        places: How many there are.
        devices: Names of the accelerators, as ``CUDA_VISIBLE_DEVICES`` takes them; empty: they run on the CPU.
        cores: Shared out among the places.
    """

    def __init__(self, places: int, devices: Sequence[str], cores: int) -> None:
        self._places = places
        self._devices = devices
        self._cores = cores

    def outcomes(self, jobs: Sequence[Job], started: Callable[[Job], None]) -> Iterator[Outcome]:
        """As ``Runner`` says."""
        waiting, running = list(jobs), dict[int, tuple[Job, subprocess.Popen[bytes], float]]()
        try:
            while waiting or running:
                for place in range(self._places):
                    if waiting and place not in running:
                        job = waiting.pop(0)
                        job.prepare()
                        running[place] = job, launch(job.arguments, job.log, self.environment(place)), time.monotonic()
                        started(job)
                for place, (job, process, begun) in list(running.items()):
                    if process.poll() is not None:
                        del running[place]
                        yield Outcome(job, process.returncode, time.monotonic() - begun)
                time.sleep(PAUSE if running else 0)
        finally:
            end([process for _, process, _ in running.values()])

    def environment(self, place: int) -> dict[str, str]:
        """Variables of a process: accelerators are dealt in turn, and so are threads unless the user has set them."""
        own = dict(os.environ)
        if self._devices:
            own["CUDA_VISIBLE_DEVICES"] = self._devices[place % len(self._devices)]
        if self._places > 1:
            own.setdefault("OMP_NUM_THREADS", str(max(1, self._cores // self._places)))
        return own


def visible_devices() -> list[str]:
    """The accelerators that processes may be given, by the names that ``CUDA_VISIBLE_DEVICES`` has for them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named is not None else [str(number) for number in range(count)]


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
