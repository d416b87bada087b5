"""Whether a run may begin or go on: its folder is free, or holds the same run."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from mta_framework.errors import Fault, InputError, collect_faults
from mta_framework.evaluation.report import REPORT_FILE, read_report
from mta_framework.runs.folder import RunFolder
from mta_framework.runs.inputs import changed_inputs, contents, data_contents
from mta_framework.runs.plugin_binding import BoundEvaluation, BoundRun
from mta_framework.spec.document import read_document
from mta_framework.spec.effects import Effect, differences
from mta_framework.spec.evaluation_spec import EvaluationSpec
from mta_framework.spec.input_fields import absolute_document, without_locations
from mta_framework.spec.run import RunSpec
from mta_framework.storage import is_listed, read_json

_OUTPUTS = ("checkpoints", "key-layers.json", "training.json", "student", "predictions", "report.json")
"""Files and directories that only a run writes."""


def require_free(bound: BoundRun, resume: bool) -> None:
    """Refuse a folder that holds another run, before anything slow starts.

    Args:
        bound: The run.
        resume: Whether to go on with a run of the same spec and inputs.

    Raises:
        InputError: The folder holds a run and ``resume`` is not set, or that run was begun by another spec or with
            other data or models, or by an unknown one.
    """
    folder = RunFolder.of(bound.spec)
    if not folder.spec_file.is_file():
        _require_empty(folder, folder.spec_file, "the spec that the run began with")
        return
    if not resume:
        problem = f"already holds a run (got {folder.path})"
        raise InputError([Fault("name", problem, "a name without a run", "Choose another, or go on with --resume.")])
    require_same(bound)


def _require_empty(folder: RunFolder, missing: Path, expected: str) -> None:
    outputs = [name for name in _OUTPUTS if (folder.path / name).exists()]
    if outputs:
        problem = f"is missing, and the folder holds what a run left (got {', '.join(outputs)})"
        hint = "Put it back, choose another name for the run, or delete the folder."
        raise InputError([Fault(str(missing), problem, expected, hint)])


def require_same(bound: BoundRun) -> None:
    """Refuse to go on with a run that another spec began, or with other data or models.

    Fields that do not affect the weights may differ, and so may paths: not they but the content behind them counts.

    Raises:
        InputError: All fields that differ, or the run's spec.json cannot be read.
    """
    spec, folder = bound.spec, RunFolder.of(bound.spec)
    began, _ = read_document(folder.spec_file)
    now_is = spec.model_dump(mode="json")
    before, after = _without_locations(spec, began, now_is)
    faults = [
        Fault(
            where,
            f"is not what the run in {folder.path} began with (got {json.dumps(now)})",
            f"{json.dumps(then)} as in its spec.json",
            "Set it back, choose another name, or delete the folder." + _hint(where, began, now_is),
        )
        for where, then, now in differences(RunSpec, before, after, ("weights",))
    ]
    if folder.inputs.is_file():
        with collect_faults(faults):
            faults += changed_inputs(bound, folder)
    else:
        with collect_faults(faults):
            _require_empty(folder, folder.inputs, "the digests of the inputs that the run began with")
    if faults:
        raise InputError(faults)


def is_reported(bound: BoundRun) -> bool:
    """Whether the run's report is there, and was made by this spec on the evaluation sets as they are now.

    A report that the manifest does not list is none: the run was ended before it could be entered.
    """
    folder = RunFolder.of(bound.spec)
    if not folder.is_finished:
        return False
    with suppress(InputError):
        report = read_report(folder.path)
        # The options of plugins are complete in the report; they are compared where a run is resumed.
        documents = (_shallow(document) for document in (report.spec, bound.spec.model_dump(mode="json")))
        then, now = _without_locations(bound.spec, *documents)
        # A field that an earlier version lacked is absent, which is None here.
        is_same = not any(differences(RunSpec, then, now, get_args(Effect)))
        return (
            is_same
            and is_listed(folder.path, REPORT_FILE)
            and all(
                report.inputs.get(name) == content for name, content in data_contents(bound.spec, "evaluation.").items()
            )
        )
    return False


def _shallow(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document without the options of base loss and alignment, which a report has with all defaults."""
    plain = copy.deepcopy(dict(document))
    alignment = plain.get("alignment") or {}
    named = [alignment.get(name) for name in ("spans", "importance", "pooling", "layers")]
    sections = named + alignment.get("terms", [])
    for section in (plain.get("base_loss"), *sections):
        if isinstance(section, dict):
            section.pop("params", None)
    return plain


def _without_locations(spec: RunSpec | EvaluationSpec, *documents: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from (without_locations(type(spec), document) for document in documents)


def require_same_evaluation(bound: BoundEvaluation) -> None:
    """Refuse a folder that holds something else, whose predictions would be overwritten.

    Seeds, metrics and sets may differ, but sets of the same name have to be the same. What lies under another path than
    before has to have the same content; what has changed in place is evaluated anew.

    Raises:
        InputError: It holds a run, or another evaluation: all fields that differ.
    """
    spec, folder = bound.spec, RunFolder.of(bound.spec)
    if not folder.spec_file.is_file():
        return
    began, faults = read_document(folder.spec_file)
    if "student" in began:
        problem, hint = f"already holds a run (got {folder.path})", "Choose another."
        raise InputError([Fault("-o", problem, "a folder without one", hint)])
    moved_alike = _same_content(bound, folder)
    began, now_is = absolute_document(EvaluationSpec, began, folder.path), spec.model_dump(mode="json")
    for where, then, now in differences(EvaluationSpec, began, now_is, ("weights", "responses")):
        added_or_left_out = None in (then, now) and isinstance(then or now, dict)
        if where not in moved_alike and not (where.startswith("evaluation.sets.") and added_or_left_out):
            problem = f"is not what the evaluation in {folder.path} began with (got {json.dumps(now)})"
            expected = f"{json.dumps(then)} as in its spec.json"
            faults.append(Fault(where, problem, expected, "Set it back, or choose another folder with -o."))
    if faults:
        raise InputError(faults)


def _same_content(bound: BoundEvaluation, folder: RunFolder) -> set[str]:
    """The fields whose content is what the evaluation in a folder began with."""
    with suppress(OSError, ValueError):
        began = read_json(folder.inputs)
        return {name for name, content in contents(bound).items() if began.get(name) == content}
    return set()


def _hint(where: str, *documents: Any) -> str:
    """A hint for a field that only one of the documents has, perhaps because another version wrote it."""
    for document in documents:
        for key in where.split("."):
            if not isinstance(document, dict):
                return ""  # one has the section, the other has not: this version knows the field
            if key not in document:
                return " If there is no such field in this version, go on with the one that began the run."
            document = document[key]
    return ""
