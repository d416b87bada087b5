"""Ends other processes when this one dies, however it does."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence


class ProcessGuard:
    """Kills processes when this one has ended without ``close``, be it by SIGKILL.

    A shell waits for the end of its input, which this process holds open, in a session that Ctrl-C does not reach.

    Args:
        pids: Ids of the processes.
    """

    def __init__(self, pids: Sequence[int]):
        command = ["sh", "-c", 'cat > /dev/null; kill -9 "$@"', "sh", *map(str, pids)]
        self._shell = subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, close_fds=True
        )

    def close(self) -> None:
        """Watch no longer: the processes are ended otherwise."""
        self._shell.kill()
        self._shell.communicate()
