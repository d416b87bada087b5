"""Turns the command line of ``mta evaluate`` into the spec of an evaluation, with the settings of a run as defaults."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mta_framework.errors import Fault, InputError
from mta_framework.spec.document import KeyPath, parse, read_document
from mta_framework.spec.evaluation_spec import EvaluationSpec
from mta_framework.spec.input_fields import absolute_document
from mta_framework.spec.reading import RawSpec, read_settings
from mta_framework.spec.run import RunSpec
from mta_framework.spec.section import HubId
from mta_framework.spec.training import DTYPE_OF_PRECISION

_RUN_SPEC = "spec.json"


@dataclass(frozen=True)
class EvaluateRequest:
    """The command line of ``mta evaluate``.

    Args:
        target: A run folder, a transformers folder, a GGUF file or an id on the hub.
        data: Data sets as ``NAME=FILE``, which replace the sets of the run.
        seeds: Sampling seeds, separated by commas; None means the default.
        metrics: Names of metrics, used with their default options; empty means the default.
        template: Template that turns instruction rows into prompts; None means the default.
        dtype: Dtype of the weights; None means the default.
        output: Folder of predictions and report; None means ``evaluations/NAME``, named after the target.
        overrides: ``KEY=VALUE`` settings.
    """

    target: str
    data: Sequence[str] = ()
    seeds: str | None = None
    metrics: Sequence[str] = ()
    template: str | None = None
    dtype: str | None = None
    output: str | None = None
    overrides: Sequence[str] = ()


def read_request(request: EvaluateRequest) -> RawSpec[EvaluationSpec]:
    """Build the spec and validate it; plugins are checked by binding.

    Returns:
        The spec, or all faults of the command line.

    Raises:
        InputError: The target is a folder of another kind, so that the rest cannot be checked.
    """
    raw = _defaults(request.target)
    output = request.output or str(Path("evaluations") / _name(_last(request.target)))
    raw |= {"name": _name(Path(output).name), "folder": output}
    faults: list[Fault] = []
    given: dict[KeyPath, str] = {("folder",): "-o", **_data(raw, request, faults)}
    if request.seeds is not None:
        raw["evaluation"]["seeds"] = [_parsed(seed) for seed in request.seeds.split(",")]
        given["evaluation", "seeds"] = "--seeds"
    if request.metrics:
        raw["evaluation"]["metrics"] = [{"name": name} for name in request.metrics]
        given["evaluation", "metrics"] = "--metric"
    if request.template is not None:
        raw["template"] = request.template
    if request.dtype is not None:
        raw["model"]["dtype"] = request.dtype
    reading = read_settings(EvaluationSpec, raw, Path.cwd(), request.overrides, given)
    for fault in reading.faults:
        if fault.where != "evaluation.sets":
            faults.append(fault)
        elif not request.data:  # a faulty --data is named already
            faults.append(_no_data())
    return replace(reading, faults=tuple(faults), spec=None if faults else reading.spec)


def _data(raw: dict[str, Any], request: EvaluateRequest, faults: list[Fault]) -> dict[KeyPath, str]:
    """Put ``--data`` into the document, and return the key paths with the names of their options."""
    sets: dict[str, dict[str, str]] = {}
    for entry in request.data:
        name, equals, file = entry.partition("=")
        if not (name and equals and file) or name in sets:
            problem = f"repeats {name!r}" if name in sets else "is not a data set"
            expected = "NAME=FILE, each NAME once, e.g. test=test.jsonl"
            faults.append(Fault(f"--data {entry}", f"{problem} (got {entry!r})", expected, "Write it in this form."))
        else:
            sets[name] = {"path": file}
    if request.data:
        raw["evaluation"]["sets"] = sets
    return {("evaluation", "sets", name): f"--data {name}" for name in sets}


def _no_data() -> Fault:
    problem, expected = (
        "must be given unless the target is a run with an evaluation",
        "NAME=FILE, JSON Lines",
    )
    return Fault("--data", problem, expected, "Add it, e.g. --data test=test.jsonl.")


def _defaults(target: str) -> dict[str, Any]:
    """The document with the settings of the target."""
    path = Path(target).expanduser()
    if (path / _RUN_SPEC).is_file():
        return _of_run(path)
    local = path.exists() or not _is_hub_id(target) or ("/" in target and path.parent.is_dir())
    return {"model": {"path" if local else "hub": target}, "evaluation": {}}


def _of_run(folder: Path) -> dict[str, Any]:
    document, faults = read_document(folder / _RUN_SPEC)
    if faults:
        raise InputError(faults)
    if "student" not in document:
        problem, hint = "is not the folder of a run", "Give the folder of a model."
        raise InputError([Fault("TARGET", f"{problem} (got {folder})", "a run folder, or a model", hint)])
    if not (folder / "student").is_dir():
        problem = f"is a run without a trained student (got {folder})"
        hint = "Finish it with `mta run SPEC --resume`."
        raise InputError([Fault("TARGET", problem, "a run whose training is complete, or a model", hint)])
    document = absolute_document(RunSpec, document, folder)
    data, training, evaluation = (_part(document, name) for name in ("data", "training", "evaluation"))
    dtype = DTYPE_OF_PRECISION.get(str(training.get("precision")), "float32")
    return {
        "model": {"path": str(folder / "student"), "dtype": dtype},
        "template": data.get("template", "alpaca"),
        "template_options": data.get("template_options", {}),
        "add_special_tokens": data.get("add_special_tokens", True),
        "teacher_field": data.get("teacher_field", "teacher"),
        "evaluation": {name: value for name, value in evaluation.items() if name != "models"},
    }


def _part(document: dict[str, Any], name: str) -> dict[str, Any]:
    part = document.get(name)
    return part if isinstance(part, dict) else {}


def _is_hub_id(target: str) -> bool:
    try:
        TypeAdapter(HubId).validate_python(target)
    except ValidationError:
        return False
    return True


def _last(target: str) -> str:
    """The last part of a path or an id, without the suffix of a file."""
    path = Path(target).expanduser()
    return path.resolve().stem if path.is_file() else (path.resolve() if path.exists() else path).name


def _name(text: str) -> str:
    """The text with characters replaced that the name of an evaluation cannot contain."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text).lstrip("._-")[:100] or "model"


def _parsed(text: str) -> Any:
    try:
        return parse(text)
    except ValueError:
        return text
