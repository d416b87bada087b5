"""A run in a process of its own, with a log beside it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mta_framework.errors import RunError
from mta_framework.runs.folder import RunFolder
from mta_framework.runs.plugin_binding import BoundRun
from mta_framework.storage import write_json

PAUSE = 0.2
"""Seconds between two looks at processes."""

_GRACE = 10.0
"""Seconds that a process has to end before it is killed."""


@dataclass(frozen=True)
class Job:
    """What a process does.

    Args:
        name: What messages call it.
        run: Its run.
        plugin_files: Loaded besides the installed plugins.
    """

    name: str
    run: BoundRun
    plugin_files: tuple[Path, ...] = ()

    @property
    def folder(self) -> RunFolder:
        """Of the run."""
        return RunFolder.of(self.run.spec)

    @property
    def log(self) -> Path:
        """Where the output of the process goes; a run that goes on writes behind what is there."""
        return self.folder.path / "run.log"

    @property
    def arguments(self) -> tuple[str, ...]:
        """Of the command line: the run is begun or gone on with, as the resolved spec in its folder says."""
        files = [part for path in self.plugin_files for part in ("-p", str(path.resolve()))]
        return (*files, "run", str(self.folder.spec_file), "--resume")

    def prepare(self) -> None:
        """Put the resolved spec into the folder.

        Raises:
            RunError: It cannot be written.
        """
        try:
            write_json(self.folder.spec_file, self.run.spec.model_dump(mode="json"))
        except OSError as error:
            raise RunError(f"cannot write to {self.folder.path} ({error.strerror}); set output_dir") from error


@dataclass(frozen=True)
class Outcome:
    """How a process ended: with 0 where all went well, below 0 by a signal; and after how many seconds."""

    job: Job
    code: int
    seconds: float

    @property
    def failure(self) -> str:
        """Why it failed: the last thing that it said."""
        if self.code < 0:
            name = signal.Signals(-self.code).name
            return f"ended by {name}" + (", as where memory runs out" if name == "SIGKILL" else "")
        lines = re.split(r"[\r\n]+", self.job.log.read_text(encoding="utf-8", errors="replace").strip())
        # The count of faults says less than the fault before it.
        messages = [line.strip() for line in lines if line.strip() and not line.endswith("; nothing was run.")]
        return messages[-1] if messages else f"ended with {self.code}"


class Runner(Protocol):
    """Runs jobs, several at once where there is room."""

    def outcomes(self, jobs: Sequence[Job], started: Callable[[Job], None]) -> Iterator[Outcome]:
        """Run all, and give each outcome as it comes; what runs is ended where the caller gives up.

        Args:
            jobs: In the order in which they are started.
            started: Called with each.
        """
        ...


def launch(arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start ``mta`` with its output in ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "mta_framework", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment, "PYTHONUNBUFFERED": "1"},
        )


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes: they are interrupted, so that they end their own, and killed when they do not listen."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
    limit = time.monotonic() + _GRACE
    for process in processes:
        try:
            process.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
