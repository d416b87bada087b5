"""Runs the command, and lets every file end early from a stage on: to programs this is a disk without room."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

from mta_framework.cli import main
from mta_framework.runs import pipeline
from mta_framework.teacher_cache.filling import TeacherCache
from mta_framework.training import checkpoints

ROOM = 700
"""Bytes that a file may have: less than any that a run writes."""

STAGES = {
    "teacher cache": (TeacherCache, "fill", "before"),
    "checkpoint": (checkpoints, "publish", "after"),
    "export": (pipeline, "save_student", "before"),
    "predictions": (pipeline, "evaluate_models", "before"),
    "report": (pipeline, "write_report", "before"),
}
"""Stage -> what is called there, and whether it still has room itself."""


def _without_room(call: Callable[..., Any], when: str) -> Callable[..., Any]:
    def limited(*arguments: Any, **options: Any) -> Any:
        if when == "before":
            resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))
        result = call(*arguments, **options)
        resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))
        return result

    return limited


if __name__ == "__main__":
    owner, name, when = STAGES[sys.argv[1]]
    with mock.patch.object(owner, name, _without_room(getattr(owner, name), when)):
        main(sys.argv[2:])
