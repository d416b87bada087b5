"""Whether a run may begin or go on: its folder is free, or holds the same run."""

from __future__ import annotations

import json
from typing import Any

from mta_framework.errors import Fault, InputError
from mta_framework.runs.folder import RunFolder
from mta_framework.spec.document import read_document
from mta_framework.spec.effects import differences
from mta_framework.spec.evaluation_spec import EvaluationSpec
from mta_framework.spec.run import RunSpec

_OUTPUTS = ("checkpoints", "key-layers.json", "training.json", "student", "predictions", "report.json")
"""Files and directories that only a run writes."""


def require_free(spec: RunSpec, resume: bool) -> None:
    """Refuse a folder that holds another run, before anything slow starts.

    Args:
        spec: Spec of the run.
        resume: Whether to go on with a run of the same spec.

    Raises:
        InputError: The folder holds a run and ``resume`` is not set, or that run was begun by another spec, or by an
            unknown one.
    """
    folder = RunFolder.of(spec)
    if not folder.spec_file.is_file():
        _require_empty(folder)
        return
    if not resume:
        problem = f"already holds a run (got {folder.path})"
        raise InputError([Fault("name", problem, "a name without a run", "Choose another, or go on with --resume.")])
    require_same(spec, folder)


def _require_empty(folder: RunFolder) -> None:
    outputs = [name for name in _OUTPUTS if (folder.path / name).exists()]
    if outputs:
        problem = f"is missing, and the folder holds what a run left (got {', '.join(outputs)})"
        hint = "Put it back, choose another name for the run, or delete the folder."
        raise InputError([Fault(str(folder.spec_file), problem, "the spec that the run began with", hint)])


def require_same(spec: RunSpec, folder: RunFolder) -> None:
    """Refuse to go on with a run that another spec began; fields that do not affect the weights may differ.

    Raises:
        InputError: All fields that differ, or the run's spec.json cannot be read.
    """
    began, _ = read_document(folder.spec_file)
    now_is = spec.model_dump(mode="json")
    faults = [
        Fault(
            where,
            f"is not what the run in {folder.path} began with (got {json.dumps(now)})",
            f"{json.dumps(then)} as in its spec.json",
            "Set it back, choose another name, or delete the folder." + _hint(where, began, now_is),
        )
        for where, then, now in differences(RunSpec, began, now_is, ("weights",))
    ]
    if faults:
        raise InputError(faults)


def require_same_evaluation(spec: EvaluationSpec) -> None:
    """Refuse a folder that holds something else, whose predictions would be overwritten.

    Seeds, metrics and sets may differ, but sets of the same name have to be the same.

    Raises:
        InputError: It holds a run, or another evaluation: all fields that differ.
    """
    folder = RunFolder.of(spec)
    if not folder.spec_file.is_file():
        return
    began, faults = read_document(folder.spec_file)
    if "student" in began:
        problem, hint = f"already holds a run (got {folder.path})", "Choose another."
        raise InputError([Fault("-o", problem, "a folder without one", hint)])
    for where, then, now in differences(EvaluationSpec, began, spec.model_dump(mode="json"), ("weights", "responses")):
        added_or_left_out = None in (then, now) and isinstance(then or now, dict)
        if not (where.startswith("evaluation.sets.") and added_or_left_out):
            problem = f"is not what the evaluation in {folder.path} began with (got {json.dumps(now)})"
            expected = f"{json.dumps(then)} as in its spec.json"
            faults.append(Fault(where, problem, expected, "Set it back, or choose another folder with -o."))
    if faults:
        raise InputError(faults)


def _hint(where: str, *documents: Any) -> str:
    """A hint for a field that only one of the documents has, perhaps because another version wrote it."""
    for document in documents:
        for key in where.split("."):
            if key not in document:
                return " If there is no such field in this version, go on with the one that began the run."
            document = document[key]
    return ""
