"""Fingerprints of weights, so that saved predictions are never used for weights that have changed since."""

from __future__ import annotations

import json
from pathlib import Path

from mta_framework.spec.run import RunSpec


def fingerprints(spec: RunSpec, student_folder: Path, teacher_folder: Path | None) -> dict[str, str]:
    """Compute a fingerprint of the weights of every model of a run.

    Args:
        spec: Spec of the run.
        student_folder: Folder of the exported student.
        teacher_folder: Folder of the student that ``teacher.run`` exported; None for any other teacher, or none.

    Returns:
        Name of the model (``student``, ``teacher``, ``initial_student``) -> a string that changes whenever its weights
        change.
    """
    precision = spec.training.precision
    source = spec.teacher.model_dump(mode="json") if spec.teacher else None
    path = teacher_folder or (Path(spec.teacher.path) if spec.teacher and spec.teacher.path else None)
    teacher = json.dumps([source, precision, weight_file_stats(path)])
    initial = [
        spec.student.model_dump(mode="json"),
        spec.seed,
        precision,
        teacher if spec.student.teacher_layers else "",
    ]
    return {
        "student": json.dumps([precision, weight_file_stats(student_folder)]),
        "teacher": teacher,
        "initial_student": json.dumps(initial),
    }


def weight_file_stats(path: Path | None) -> list[list[str | int]]:
    """List path, size and modification time of the weight files at a path.

    Args:
        path: A model folder, whose safetensors files are listed, or one file; None gives an empty list.

    Returns:
        ``[path, bytes, nanoseconds]`` for each file.
    """
    if path is None:
        return []
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.exists()]
