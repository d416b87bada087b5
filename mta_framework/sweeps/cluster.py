"""Runs jobs as tasks of a Ray cluster; run folders lie on a file system that its machines share."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mta_framework.errors import Fault, InputError
from mta_framework.sweeps.job import PAUSE, Job, Outcome, end, launch

_PATIENCE = 20.0
"""Seconds that tasks have to end their processes."""


@contextmanager
def cluster(address: str, slots: int | None) -> Iterator[Cluster]:
    """A connection to a cluster.

    Args:
        address: ``HOST:PORT``, or ``auto`` for the cluster that this machine belongs to.
        slots: Number of tasks that run at once; None: as many as the cluster has GPUs, or else cores.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """
    ray = _connected(address)
    try:
        yield Cluster(ray, slots)
    finally:
        ray.shutdown()


class Cluster:
    """One GPU for each task where the cluster has any, else a share of its cores; ``cluster`` makes it."""

    def __init__(self, ray: Any, slots: int | None) -> None:
        self._ray = ray
        resources = self._ray.cluster_resources()
        gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
        self._slots = slots or gpus or cores
        # Ray gives a task as many threads as it was given cores.
        share = min(cores // max(self._slots, gpus), self._most_cores_of_a_task(bool(gpus)))
        self._needs = {"num_cpus": max(1, share), "num_gpus": 1 if gpus else 0}

    def _most_cores_of_a_task(self, on_gpus: bool) -> int:
        """The cores that a task can have on one machine: for each GPU of every machine with any, or of the largest."""
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if on_gpus:
            return min(int(each.get("CPU", 0) // each["GPU"]) for each in machines if each.get("GPU", 0) >= 1)
        return max(int(each.get("CPU", 0)) for each in machines)

    def outcomes(self, jobs: Sequence[Job], started: Callable[[Job], None]) -> Iterator[Outcome]:
        """Run all jobs as tasks; see ``Pool.outcomes``. A job counts as started when it is submitted."""
        # Not by decorator: Ray is an optional library. A machine that is lost must not begin the run a second time.
        task = self._ray.remote(max_retries=0, **self._needs)(work)
        waiting, running = list(jobs), dict[Any, tuple[Job, float]]()
        try:
            while waiting or running:
                while waiting and len(running) < self._slots:
                    job = waiting.pop(0)
                    job.prepare()
                    running[task.remote(job.arguments, str(job.log))] = job, time.monotonic()
                    started(job)
                done, _ = self._ray.wait(list(running), timeout=PAUSE)
                for reference in done:
                    job, begun = running.pop(reference)
                    yield Outcome(job, self._code(reference, job), time.monotonic() - begun)
        finally:
            for reference in running:
                self._ray.cancel(reference)
            if running:
                self._ray.wait(list(running), num_returns=len(running), timeout=_PATIENCE)

    def _code(self, reference: Any, job: Job) -> int:
        try:
            return int(self._ray.get(reference))
        except self._ray.exceptions.RayError as error:
            with job.log.open("a", encoding="utf-8") as log:
                log.write(f"\n{type(error).__name__}: {str(error).splitlines()[-1]}\n")
            return 1


def work(arguments: Sequence[str], log: str) -> int:
    """Body of a task: run ``mta`` in a process of its own on the machine of the task.

    Returns:
        Exit code of the process.
    """
    process = launch(arguments, Path(log), os.environ)
    try:
        while process.poll() is None:
            time.sleep(PAUSE)
    finally:
        end([process])
    return process.returncode


def _connected(address: str) -> Any:
    try:
        import ray
    except ImportError:
        hint = "Leave it out, or: pip install 'mta-framework[ray]'."
        raise InputError([Fault("--ray", f"needs Ray (got {address!r})", "an installation of Ray", hint)]) from None
    try:
        if address != "auto":
            _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, ValueError, RuntimeError) as error:
        problem = f"is no Ray cluster (got {address!r}: {str(error).splitlines()[0]})"
        hint = "Start one with `ray start --head`, or correct the address."
        raise InputError([Fault("--ray", problem, "auto, or HOST:PORT of a cluster that runs", hint)]) from None
    return ray


def _knock(address: str) -> None:
    """Fail at once if nothing listens at the address, where Ray would retry for minutes.

    Raises:
        OSError: The connection is refused.
        ValueError: The address has not the form ``HOST:PORT``.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("no host and port")
    socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
