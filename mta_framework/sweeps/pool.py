"""Runs side by side on this machine, each in a slot with its share of accelerators and cores."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mta_framework.sweeps.job import PAUSE, Job, Outcome, end, launch


@dataclass(frozen=True)
class Pool:
    """A fixed number of slots with one process each at a time.

    Args:
        slots: Number of slots.
        devices: Names of the accelerators, as ``CUDA_VISIBLE_DEVICES`` takes them; empty: they run on the CPU.
        cores: Number of cores, which the slots share.
    """

    slots: int
    devices: Sequence[str]
    cores: int

    def outcomes(self, jobs: Sequence[Job], started: Callable[[Job], None]) -> Iterator[Outcome]:
        """Run all jobs and yield each outcome as it comes; closing the iterator ends the jobs that are running.

        Args:
            jobs: Jobs in the order in which they are started.
            started: Callback that gets each job when it starts.
        """
        waiting, running = list(jobs), dict[int, tuple[Job, subprocess.Popen[bytes], float]]()
        try:
            while waiting or running:
                for slot in range(self.slots):
                    if waiting and slot not in running:
                        job = waiting.pop(0)
                        job.prepare()
                        running[slot] = job, launch(job.arguments, job.log, self.environment(slot)), time.monotonic()
                        started(job)
                for slot, (job, process, begun) in list(running.items()):
                    if process.poll() is not None:
                        del running[slot]
                        yield Outcome(job, process.returncode, time.monotonic() - begun)
                time.sleep(PAUSE if running else 0)
        finally:
            end([process for _, process, _ in running.values()])

    def environment(self, slot: int) -> dict[str, str]:
        """Variables of a process: accelerators are dealt in turn, and so are threads unless the user has set them."""
        variables = dict(os.environ)
        if self.devices:
            variables["CUDA_VISIBLE_DEVICES"] = self.devices[slot % len(self.devices)]
        if self.slots > 1:
            variables.setdefault("OMP_NUM_THREADS", str(max(1, self.cores // self.slots)))
        return variables


def visible_devices() -> list[str]:
    """The accelerators that processes may be given, by the names that ``CUDA_VISIBLE_DEVICES`` has for them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named is not None else [str(index) for index in range(count)]


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
