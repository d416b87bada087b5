"""A run in a process of its own, with a log beside it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

from mta_framework.errors import writing_to
from mta_framework.runs.folder import RunFolder, is_locked, save_spec
from mta_framework.runs.plugin_binding import BoundRun
from mta_framework.runs.resume import is_reported

LOG = "run.log"
"""Name of the log of a run's process in the run folder."""

PAUSE = 0.2
"""Seconds between two looks at processes."""

_GRACE = 10.0
"""Seconds that a process has to end before it is killed."""


@dataclass(frozen=True)
class Job:
    """A run that is to be started in a process of its own.

    Args:
        name: Label of the job in messages.
        run: Bound run.
        plugin_files: Plugin files to load besides the installed plugins.
    """

    name: str
    run: BoundRun
    plugin_files: tuple[Path, ...] = ()

    @property
    def folder(self) -> RunFolder:
        """Folder of the run."""
        return RunFolder.of(self.run.spec)

    @property
    def log(self) -> Path:
        """Log file of the process; a resumed run appends to it."""
        return self.folder.path / LOG

    @property
    def arguments(self) -> tuple[str, ...]:
        """Command-line arguments after ``mta``: run, or resume, the spec that is saved in the run folder."""
        files = [part for path in self.plugin_files for part in ("-p", str(path.resolve()))]
        return (*files, "run", str(self.folder.spec_file), "--resume")

    def prepare(self) -> None:
        """Put the resolved spec into the folder.

        Raises:
            RunError: It cannot be written.
        """
        with writing_to(self.folder.path, "set output_dir"):
            save_spec(self.run.spec)


@dataclass(frozen=True)
class Outcome:
    """How a job ended: its exit code, below 0 if a signal ended it, and its duration in seconds."""

    job: Job
    code: int
    seconds: float

    @property
    def finished(self) -> bool:
        """Whether the run is finished: an exit code of 0 is not enough, which plugins and their libraries can set."""
        return self.code == 0 and is_reported(self.job.run)

    @property
    def failure(self) -> str:
        """Reason of a failure: the last line of the log, or the signal."""
        if self.code == 0:
            return "ended with 0 before its report was written"
        if self.code < 0:
            name = signal.Signals(-self.code).name
            return f"ended by {name}" + (", as where memory runs out" if name == "SIGKILL" else "")
        lines = re.split(r"[\r\n]+", self.job.log.read_text(encoding="utf-8", errors="replace").strip())
        # The count of faults says less than the fault before it.
        messages = [line.strip() for line in lines if line.strip() and not line.endswith("; nothing was run.")]
        return messages[-1] if messages else f"ended with {self.code}"


def launch(arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start ``mta`` with its output in ``log``, which stays locked for as long as the process lives.

    The process inherits the lock with the open file, so that it outlives this process, and is held from the first
    moment: the run itself locks its folder only when data and models are prepared.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        _lock(output)
        return subprocess.Popen(
            [sys.executable, "-m", "mta_framework", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment, "PYTHONUNBUFFERED": "1"},
        )


def is_at_work(folder: RunFolder) -> bool:
    """Whether a process works on a run: one that an earlier sweep started and left behind, or anyone's."""
    log = folder.path / LOG
    if log.is_file():
        with log.open("ab") as file:
            if not _lock(file):
                return True
    return is_locked(folder.path)


def _lock(file: IO[bytes]) -> bool:
    """Lock an open file against other processes until it is closed; False where one of them holds it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


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
