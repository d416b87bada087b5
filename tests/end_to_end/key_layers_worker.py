"""Runs a spec and writes down, on every rank, which key layers it was trained with."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest import mock

from mta_framework.distributed import processes
from mta_framework.registry import discover
from mta_framework.runs import pipeline, teacher_setup
from mta_framework.runs.plugin_binding import bind


def key_layers(spec: Path, out: Path) -> None:
    """Catch the layers where the alignment is made of them: the report has those of the file."""
    original, used = teacher_setup.alignment, []

    def alignment(bound, run_models, pairs):  # type: ignore[no-untyped-def]
        used.append([[pair.student, pair.teacher, pair.granularity] for pair in pairs])
        return original(bound, run_models, pairs)

    unread = mock.patch.object(pipeline, "write_report")
    with mock.patch.object(teacher_setup, "alignment", alignment), unread:
        pipeline.run(bind(spec, discover(), [f"name={out.name}"]))
    out.with_name(f"{out.name}-rank{processes().process_index}.json").write_text(json.dumps(used[-1]))


if __name__ == "__main__":
    key_layers(Path(sys.argv[1]), Path(sys.argv[2]))
