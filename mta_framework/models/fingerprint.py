"""What tells one set of weights from another, so that predictions of changed weights are not taken for theirs."""

from __future__ import annotations

import json
from pathlib import Path

from mta_framework.spec.run import RunSpec


def fingerprints(spec: RunSpec, student_folder: Path, teacher_folder: Path | None) -> dict[str, str]:
    """For each model of a run, a text that changes when its weights do.

    Args:
        spec: Of the run.
        student_folder: The exported student.
        teacher_folder: The student that ``teacher.run`` exported, or None.
    """
    precision = spec.training.precision
    source = spec.teacher.model_dump(mode="json") if spec.teacher else None
    path = teacher_folder or (Path(spec.teacher.path) if spec.teacher and spec.teacher.path else None)
    teacher = json.dumps([source, precision, file_stamps(path)])
    initial = [
        spec.student.model_dump(mode="json"),
        spec.seed,
        precision,
        teacher if spec.student.teacher_layers else "",
    ]
    return {
        "student": json.dumps([precision, file_stamps(student_folder)]),
        "teacher": teacher,
        "initial_student": json.dumps(initial),
    }


def file_stamps(path: Path | None) -> list[list[str | int]]:
    """Name, size and time of each file of weights in a folder, or of a file; empty for None."""
    if path is None:
        return []
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.exists()]
