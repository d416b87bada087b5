"""Adds records in a process of its own, which may be killed or have no room: ``store_worker.py MODE FOLDER NAME``."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

from records import Numbered, rows

from mta_framework.errors import RunError
from mta_framework.teacher_cache.store import RecordStore


def add_forever(store: RecordStore, name: str) -> None:
    """Add files of one large record until the process is killed."""
    index = 0
    while True:
        store.add(rows(index, index + 1, size=2_000_000))
        print(index, flush=True)
        index += 1


def add_without_room(store: RecordStore, name: str) -> None:
    """Add a file that is larger than any file may be; print the error."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    try:
        store.add(rows(0, 10, size=5_000))
    except RunError as error:
        print(error)


def add_beside_another(store: RecordStore, name: str) -> None:
    """Add 20 files, of which another process adds the same at the same time."""
    for index in range(0, 100, 5):
        store.refresh()
        store.add(rows(index, index + 5, size=300))


MODES: dict[str, Any] = {"forever": add_forever, "full": add_without_room, "beside": add_beside_another}

if __name__ == "__main__":
    mode, folder, name = sys.argv[1:]
    MODES[mode](RecordStore(Path(folder), Numbered()), name)
