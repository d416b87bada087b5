"""The stages of an evaluation by itself: ``mta evaluate``.

bound spec -> outline and sets -> responses and scores -> report
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from mta_framework.distributed import processes
from mta_framework.errors import Fault, InputError, collect_faults
from mta_framework.evaluation.aggregation import aggregate
from mta_framework.evaluation.environment import environment
from mta_framework.evaluation.evaluate import Candidate, EvaluationSet, evaluate
from mta_framework.evaluation.report import EvaluationFacts, ModelFacts, Report
from mta_framework.evaluation.scoring import labelled
from mta_framework.evaluation.sets import read_sets
from mta_framework.generation.engine import SavedModel
from mta_framework.generation.engines import engine_fault
from mta_framework.generation.limits import room_fault
from mta_framework.generation.sampling import Sampling
from mta_framework.models.evaluated import EvaluatedModel
from mta_framework.reporting.writing import write_report
from mta_framework.runs.binding import BoundEvaluation
from mta_framework.runs.folder import RunFolder, open_run_folder
from mta_framework.spec.document import read_document
from mta_framework.spec.effects import differences
from mta_framework.spec.evaluation_spec import EvaluationSpec
from mta_framework.timers import Clock


@dataclass(frozen=True)
class _Ready:
    model: EvaluatedModel
    sets: list[EvaluationSet]


def assess(bound: BoundEvaluation, command: str = "") -> Report:
    """Evaluate a model and report; what the folder has of the same evaluation already is kept.

    Args:
        bound: A sound spec with its metrics.
        command: What was typed, for the report.

    Returns:
        The report, which also lies in the folder. Every process of a distributed run returns it.

    Raises:
        InputError: Model, data or folder do not fit the spec; nothing was run.
        RunError: The evaluation could not go on; predictions are kept.
    """
    clock, spec = Clock(), bound.spec
    with clock.stage("data"):
        ready = _ready(bound)
    with open_run_folder(spec) if processes().is_main_process else nullcontext():
        with clock.stage("evaluation"):
            scores = _evaluated(bound, ready)
        report = _report(spec, ready.model, scores, clock, command)
        if processes().is_main_process:
            write_report(Path(spec.folder), report)
        processes().wait_for_everyone()
    return report


def require_same(spec: EvaluationSpec) -> None:
    """Refuse a folder that holds something else, whose predictions would be overwritten.

    Seeds, metrics and sets may be other ones; a set of the same name has to be the same.

    Raises:
        InputError: It holds a run, or another evaluation: all fields that differ.
    """
    folder = RunFolder(Path(spec.folder))
    if not folder.spec_file.is_file():
        return
    began, faults = read_document(folder.spec_file)
    if "student" in began:
        problem, hint = f"already holds a run (got {folder.path})", "Choose another."
        raise InputError([Fault("-o", problem, "a folder without one", hint)])
    for where, then, now in differences(EvaluationSpec, began, spec.model_dump(mode="json"), ("weights", "responses")):
        other_set = where.startswith("evaluation.sets.") and None in (then, now) and isinstance(then or now, dict)
        if not other_set:
            problem = f"is not what the evaluation in {folder.path} began with (got {json.dumps(now)})"
            expected = f"{json.dumps(then)} as in its spec.json"
            faults.append(Fault(where, problem, expected, "Set it back, or choose another folder with -o."))
    if faults:
        raise InputError(faults)


def _ready(bound: BoundEvaluation) -> _Ready:
    spec, section, faults = bound.spec, bound.spec.evaluation, list[Fault]()
    model = EvaluatedModel(spec.model, processes().device)
    with collect_faults(faults):
        require_same(spec)
    if fault := engine_fault(section.engine, "evaluation.engine"):
        faults.append(fault)
    with collect_faults(faults):
        labelled(bound.metrics)
    with collect_faults(faults):
        fault = room_fault(model.outline.config, section.max_prompt_length, section.max_new_tokens)
        faults += [fault] if fault else []
    sets: list[EvaluationSet] = []
    with collect_faults(faults):
        sets = read_sets(section, spec.template, model.tokenizer, "template")
    if faults:
        raise InputError(faults)
    return _Ready(model, sets)


def _evaluated(bound: BoundEvaluation, ready: _Ready) -> EvaluationFacts:
    spec, section, model = bound.spec, bound.spec.evaluation, ready.model
    stored = SavedModel(model.folder, spec.model.dtype) if model.folder else None
    candidate = Candidate(spec.name, model.identity, model.tokenizer, model.load, ready.sets, stored)
    sampling = Sampling(section.temperature, section.top_p, section.max_new_tokens, section.batch_tokens)
    folder = RunFolder(Path(spec.folder)).path / "predictions"
    found = evaluate([candidate], bound.metrics, sampling, section.seeds, folder, spec.metric_cache, section.engine)
    return aggregate(found)


def _report(spec: EvaluationSpec, model: EvaluatedModel, scores: EvaluationFacts, clock: Clock, command: str) -> Report:
    outline = model.outline
    return Report(
        name=spec.name,
        spec=spec.model_dump(mode="json"),
        evaluation=scores,
        models={spec.name: ModelFacts(outline.parameters, outline.trainable, outline.shape.num_layers)},
        timings=clock.seconds,
        versions={**environment(processes().device), "processes": str(processes().num_processes)},
        command=command,
    )
