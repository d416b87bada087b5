"""Runs the parts of a benchmark one after another, each in a process of its own and within a limit of time.

Whatever happens to a part (an exception, a lost device, memory that runs out, an endless loop), what it has measured by
then is kept, and the next part begins with a clean device.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import torch

Row = dict[str, Any]
"""One row of a table: column -> value."""

Measured = Iterator[tuple[str, Row]]
"""Rows as they are measured, each with the title of its table. A row with the column ``fault`` is a failure."""

FAULT = "fault"
DONE, FAILED, STOPPED, NOT_RUN = "done", "failed", "stopped at its limit", "not run"


@dataclass(frozen=True)
class Part:
    """One part.

    Args:
        name: Name on the command line and in the results.
        measure: Generator function that measures; called in the part's process.
        seconds: Longest time that it may take.
    """

    name: str
    measure: Callable[..., Measured]
    seconds: float


@dataclass
class Outcome:
    """Result of one part.

    Args:
        name: Name of the part.
        state: How the part ended.
        seconds: Time that it took.
        tables: Rows by the title of their table.
        faults: What failed.
    """

    name: str
    state: str = NOT_RUN
    seconds: float = 0.0
    tables: dict[str, list[Row]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add(self, title: str, row: Row) -> None:
        """Add a row to its table, or a fault."""
        if FAULT in row:
            self.faults.append(f"{title}: {row['variant']}: {row[FAULT]}" if "variant" in row else row[FAULT])
        else:
            self.tables.setdefault(title, []).append(row)


def run_parts(parts: Sequence[Part], arguments: Sequence[Any], seconds: float) -> Iterator[Outcome]:
    """Run parts until the time is over; those for which none is left are not run.

    Args:
        parts: The parts, most useful first.
        arguments: Arguments of every ``measure``.
        seconds: Longest time of all parts together.

    Yields:
        The outcome of each part, in their order.
    """
    end, method = time.monotonic() + seconds, _start_method()
    for part in parts:
        outcome = Outcome(part.name)
        limit = min(part.seconds, end - time.monotonic())
        if limit > 0:
            _run(part, arguments, limit, outcome, method)
        yield outcome


def _start_method() -> str:
    """``fork``, which saves the imports, unless one of them has opened the GPU: then no forked process can use it."""
    child = os.fork()
    if child == 0:
        os._exit(torch.cuda._is_in_bad_fork())
    return "spawn" if os.waitpid(child, 0)[1] else "fork"


def fault_of(error: BaseException) -> str:
    """The exception in one line, with the innermost lines that it came from."""
    calls = traceback.extract_tb(error.__traceback__)[-4:]
    where = " < ".join(f"{'/'.join(call.filename.split('/')[-2:])}:{call.lineno}" for call in reversed(calls))
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:400]} ({where})"


def _run(part: Part, arguments: Sequence[Any], limit: float, outcome: Outcome, method: str) -> None:
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(part, arguments, sender))  # type: ignore[attr-defined]
    start = time.monotonic()
    process.start()
    sender.close()
    outcome.state = _receive(receiver, start + limit, outcome)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # and what it started
    process.kill()  # it may not have a group yet
    process.join()
    outcome.seconds = time.monotonic() - start
    if outcome.state == FAILED and not outcome.faults:
        outcome.faults.append(f"its process ended with exit code {process.exitcode}")


def _receive(receiver: Connection, deadline: float, outcome: Outcome) -> str:
    try:
        while receiver.poll(max(deadline - time.monotonic(), 0)):
            if (entry := receiver.recv()) is None:
                return DONE
            outcome.add(*entry)
    except EOFError:
        return FAILED
    return STOPPED


def remake_thread_pool() -> None:
    """Make torch's thread pool anew in a forked process.

    torch does so at its first use there, but two threads at once, such as those that read weights, get in each other's
    way ("Invalid thread pool").
    """
    torch.set_num_threads(torch.get_num_threads())


def _measure(part: Part, arguments: Sequence[Any], sender: Connection) -> None:
    with suppress(OSError):
        os.setpgid(0, 0)
    remake_thread_pool()
    try:
        for entry in part.measure(*arguments):
            sender.send(entry)
        sender.send(None)
    except BaseException as error:  # whatever ends a part is a result
        sender.send((part.name, {FAULT: fault_of(error)}))
        os._exit(1)
