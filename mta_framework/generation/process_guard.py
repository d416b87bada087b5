"""Ends other processes when this one dies, however it does."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_SCRIPT = r"""
start_time() { sed 's/.*) //' "/proc/$1/stat" | cut -d ' ' -f 20; }
end() {
    # It ends by itself when all others have, and removes the shared memory that they left.
    grep -q multiprocessing.resource_tracker "/proc/$1/cmdline" && return
    kill -STOP "$1"
    for child in $(grep -l "^PPid:.$1\$" /proc/[0-9]*/status | cut -d / -f 3); do end "$child"; done
    kill -9 "$1"
}
guarded=
while read -r pid; do guarded="$guarded $pid:$(start_time "$pid")"; done
for process in $guarded; do
    [ "$(start_time "${process%:*}")" = "${process#*:}" ] && end "${process%:*}"
done
"""
"""Reads ids of processes until its input ends, then kills these with their descendants, but none that has taken over an
id since. Without ``/proc``, as on macOS, ids are all that is known, and descendants stay."""

_INTERVAL = 0.02
"""Seconds between two looks for new children."""


class ProcessGuard:
    """Kills processes and their descendants at ``end``, or when this process has ended without it, be it by SIGKILL.

    A shell waits for the end of its input, which this process holds open, in a session that Ctrl-C does not reach.
    """

    def __init__(self) -> None:
        self._shell = subprocess.Popen(
            ["sh", "-c", _SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        assert self._shell.stdin is not None
        self._ids = self._shell.stdin
        self._shell.stdin = None  # or subprocess would hold the input of a guard that was dropped open
        _guards.add(self)

    def add(self, pid: int) -> None:
        """Guard a process from now on; does nothing where the shell was ended from outside.

        Args:
            pid: Id of a running process.
        """
        with suppress(BrokenPipeError):
            self._ids.write(b"%d\n" % pid)

    @contextmanager
    def new_children(self) -> Iterator[None]:
        """Guard the children that ``multiprocessing`` starts during this block, each within moments of its start."""
        done, known = threading.Event(), set(multiprocessing.active_children())
        watcher = threading.Thread(target=self._watch, args=(done, known), name="process-guard")
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def _watch(self, done: threading.Event, known: set[multiprocessing.process.BaseProcess]) -> None:
        last = False
        while not last:
            last = done.wait(_INTERVAL)
            for child in set(multiprocessing.active_children()) - known:
                known.add(child)
                if child.pid is not None:
                    self.add(child.pid)

    def end(self) -> None:
        """Kill the guarded processes that still run, with their descendants; one that has ended is no error."""
        self._ids.close()
        self._shell.wait()


_guards = weakref.WeakSet[ProcessGuard]()


def _close_in_child() -> None:
    """Close the input of all shells in a process that was forked, which would hold it open, too."""
    for guard in list(_guards):
        guard._ids.close()


os.register_at_fork(after_in_child=_close_in_child)
