"""Faults at operations on files, put into a process before it starts: a kill, or a disk that is full from then on."""

from __future__ import annotations

import builtins
import errno
import io
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

OPERATIONS = ("replace", "rename", "fsync", "unlink", "mkdir", "rmdir")
"""Functions of ``os`` that change a folder or bring it to the disk; opening a file to write is one more."""


class AtOperation:
    """Lets something happen at the n-th operation on a file; counts all of them.

    Args:
        happen: Called at that operation, before it is done.
        index: Index of the operation, from 0; None: never.
        counted: File that the number of operations is written to when the process ends in order; None: none.
        lasting: Whether it happens at every later operation that writes, too.
    """

    def __init__(
        self, happen: Callable[[], None], index: int | None, counted: Path | None = None, lasting: bool = False
    ) -> None:
        self._happen = happen
        self._index = index
        self._counted = counted
        self._lasting = lasting
        self._count = 0

    def __call__(self) -> None:
        """Put it into this process."""
        for name in OPERATIONS:
            setattr(os, name, self._watched(getattr(os, name), lasting=name not in ("unlink", "rmdir")))
        builtins.open = io.open = self._watched_open(io.open)  # type: ignore[assignment]

    def _step(self, lasting: bool) -> None:
        index, self._count = self._count, self._count + 1
        if self._counted is not None:
            descriptor = os.open(self._counted, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.write(descriptor, str(self._count).encode())
            os.close(descriptor)
        if self._index is not None and (index == self._index or (self._lasting and lasting and index > self._index)):
            self._happen()

    def _watched(self, function: Callable[..., Any], lasting: bool) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            self._step(lasting)
            return function(*arguments, **options)

        return watched

    def _watched_open(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if set(mode) & set("wax+"):
                self._step(lasting=True)
            return function(file, mode, *arguments, **options)

        return watched


def kill() -> None:
    """End this process as a lost machine does."""
    os.kill(os.getpid(), signal.SIGKILL)


def refuse() -> None:
    """Fail as an operation on a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def limit_files(size: int) -> Callable[[], None]:
    """Let no file of the process grow beyond so many bytes."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    return limit
