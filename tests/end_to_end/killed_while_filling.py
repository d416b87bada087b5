"""Runs the command, and kills its own process as it is about to record a batch of one teacher."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from typing import Any
from unittest import mock

from mta_framework.cli import main
from mta_framework.teacher_cache import filling
from mta_framework.teacher_cache.filling import TeacherCache
from mta_framework.teacher_cache.recording import Recorder

BATCH_TOKENS = 200
"""Most tokens of a batch: two texts or so, so that each teacher has several."""


def kill_at(teacher: str, batch: int, *command: str) -> None:
    """Run a command; ``batch`` counts from 1, and the process lives to its end where there are fewer."""
    fill, records = TeacherCache.fill, Recorder.records
    recorded, now = Counter[str](), [""]

    def named_fill(cache: TeacherCache, *arguments: Any, **options: Any) -> None:
        now[0] = cache.folder.name.partition("-")[0]
        fill(cache, *arguments, **options)

    def counted_records(*arguments: Any) -> Any:
        recorded[now[0]] += 1
        if now[0] == teacher and recorded[teacher] == batch:
            os.kill(os.getpid(), signal.SIGKILL)
        return records(*arguments)

    with (
        mock.patch.multiple(filling, _BATCH_TOKENS=BATCH_TOKENS, _FLUSH_SECONDS=0.0),
        mock.patch.object(TeacherCache, "fill", named_fill),
        mock.patch.object(Recorder, "records", counted_records),
    ):
        main(command)


if __name__ == "__main__":
    kill_at(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
