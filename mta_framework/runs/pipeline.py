"""The stages of a run, in their order: the file to read first.

    bound spec -> outlines and data -> teacher's own run -> training -> evaluation -> report

Every stage takes its own section of the spec and returns a value; plugins are bound before the first of them.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from transformers import set_seed

from mta_framework.data.batches import GroupedSampler
from mta_framework.data.prepare import PreparedData, prepare
from mta_framework.distributed import processes
from mta_framework.errors import InputError, collect_faults
from mta_framework.evaluation.aggregation import aggregate
from mta_framework.evaluation.environment import environment
from mta_framework.evaluation.evaluate import Candidate, EvaluationSet, evaluate
from mta_framework.evaluation.report import EvaluationFacts, Report
from mta_framework.evaluation.scoring import labelled
from mta_framework.evaluation.sets import read_sets
from mta_framework.generation.engine import SavedModel
from mta_framework.generation.engines import engine_fault
from mta_framework.generation.sampling import Sampling
from mta_framework.interfaces import MeasuringLayerMapper
from mta_framework.models.export import save_student
from mta_framework.models.fingerprint import fingerprints
from mta_framework.models.run_models import RunModels
from mta_framework.registry import describe
from mta_framework.reporting.writing import write_report
from mta_framework.runs import summary
from mta_framework.runs.binding import BoundRun
from mta_framework.runs.build import (
    alignment,
    alignment_layers,
    base_loss_layers,
    measured_layers,
    recorded_layers,
    similarity,
    span_cache_folder,
    training_data,
)
from mta_framework.runs.folder import RunFolder, open_run_folder, require_free, require_same
from mta_framework.runs.integrity import require_whole
from mta_framework.runs.model_checks import length_faults, tokenizer_faults
from mta_framework.runs.plan import Plan, estimate_memory
from mta_framework.runs.span_geometry import SpanGeometry, recorded_geometry
from mta_framework.spec.training import DTYPE_OF_PRECISION
from mta_framework.storage import read_json, write_json
from mta_framework.timers import Clock
from mta_framework.training.arguments import micro_batch_size, precision_fault
from mta_framework.training.distiller import Distiller
from mta_framework.training.loader import validation_fault
from mta_framework.training.train import TrainingLog, sampler_for, total_steps, train
from mta_framework.types import LayerPair


@dataclass(frozen=True)
class Ready:
    """All that is known before anything slow: models in outline, data. No weights are loaded, nothing is trained."""

    run_models: RunModels
    pairs: tuple[LayerPair, ...]
    loss_layers: tuple[tuple[int, int], ...]
    data: PreparedData
    sampler: GroupedSampler
    sets: list[EvaluationSet]
    teacher_sets: list[EvaluationSet]


def run(bound: BoundRun, resume: bool = False, command: str = "") -> Report:
    """Train, evaluate and report; everything that is done already is kept.

    Args:
        bound: A sound spec with its plugins.
        resume: Go on with a run that was interrupted.
        command: What was typed, for the report.

    Returns:
        The report, which also lies in the run folder. Every process of a distributed run returns it.

    Raises:
        InputError: Data, models or the run folder do not fit the spec; nothing was trained.
        RunError: Training or evaluation could not go on; checkpoints and predictions are kept.
    """
    clock = Clock()
    require_free(bound.spec, resume)
    with clock.stage("data"):
        ready = _ready(bound)
    with clock.stage("teacher run"):
        teacher_folder = _teacher_folder(bound.teacher)
    run_models = RunModels(bound.spec, teacher_folder, device=processes().device)
    folder = RunFolder.of(bound.spec)
    with open_run_folder(bound.spec) if processes().is_main_process else nullcontext():
        if not folder.is_trained:
            with clock.stage("training"):
                _train(bound, ready, run_models, folder)
            gc.collect()  # the trainer and its callbacks hold each other, and with them optimiser and both models
        with clock.stage("evaluation"):
            scores = _evaluate(bound, ready, run_models, folder, teacher_folder)
        return _report(bound, ready, folder, scores, clock, command)


def plan(bound: BoundRun) -> Plan:
    """What ``run`` would do. Spans are parsed (and cached), no weights are read, nothing is trained."""
    ready = _ready(bound)
    section, world_size = bound.spec.training, processes().num_processes
    student, teacher = ready.run_models.student_summary, ready.run_models.teacher_summary
    policy = bound.base_loss.batch_policy()
    micro = micro_batch_size(section, world_size) * (policy.TEXTS_PER_PROMPT if policy else 1)
    return Plan(
        summary.model_facts(ready.run_models),
        summary.data_facts(ready.data),
        summary.span_facts(ready.data.train),
        ready.pairs,
        total_steps(section, ready.sampler),
        estimate_memory(bound.spec, student, teacher, len(ready.pairs) + len(ready.loss_layers), micro),
        ready.data.unparsed,
        ready.loss_layers,
        describe(policy) if policy else None,
        isinstance(bound.layers, MeasuringLayerMapper),
    )


def _teacher_folder(teacher: BoundRun | None) -> Path | None:
    """The exported student of ``teacher.run``; the run is begun, or gone on with, unless it is finished."""
    if teacher is None:
        return None
    folder = RunFolder.of(teacher.spec)
    if folder.is_finished:
        require_same(teacher.spec, folder)
    else:
        run(teacher, resume=True)
    return folder.student


def _ready(bound: BoundRun) -> Ready:
    require_whole(bound)
    spec, run_models = bound.spec, summarised_models(bound)
    faults = [fault for fault in (precision_fault(spec.training),) if fault]
    with collect_faults(faults):
        faults += length_faults(spec, run_models)
    asked = {"training.generation.engine": spec.training.generation, "evaluation.engine": spec.evaluation}
    faults += [fault for where, section in asked.items() if section and (fault := engine_fault(section.engine, where))]
    with collect_faults(faults):
        labelled(bound.metrics)
    with collect_faults(faults):
        pairs = alignment_layers(bound.layers, run_models)
    with collect_faults(faults):
        loss_layers = base_loss_layers(bound.base_loss, run_models)
    with collect_faults(faults):
        faults += tokenizer_faults(bound, run_models)
    with collect_faults(faults):
        sets = teacher_sets = read_sets(spec.evaluation, spec.data.template, run_models.tokenizer)
        if run_models.teacher_tokenizer is not None:
            teacher_sets = read_sets(spec.evaluation, spec.data.template, run_models.teacher_tokenizer)
    with collect_faults(faults), processes().main_process_first():  # the others find its spans in the cache
        folder = span_cache_folder(spec)
        data = prepare(spec.data, run_models.tokenizer, bound.spans, folder, run_models.teacher_tokenizer)
        sampler = sampler_for(data.train.examples, spec.training, spec.seed)
        if data.validation and (fault := validation_fault(len(data.validation.examples), processes().num_processes)):
            faults.append(fault)
    if faults:
        raise InputError(faults)
    summary.warn_of_size(run_models)
    return Ready(run_models, pairs, loss_layers, data, sampler, sets, teacher_sets)


def summarised_models(bound: BoundRun) -> RunModels:
    """The models as far as they can be told before ``teacher.run`` is done."""
    if bound.teacher is None:
        return RunModels(bound.spec)
    exported = RunFolder.of(bound.teacher.spec)
    if exported.is_trained:
        return RunModels(bound.spec, exported.student)
    return RunModels(bound.spec, teacher_run=summarised_models(bound.teacher))


def _train(bound: BoundRun, ready: Ready, run_models: RunModels, folder: RunFolder) -> None:
    spec, data = bound.spec, ready.data
    teacher = run_models.teacher()
    student = run_models.student(teacher)
    set_seed(spec.seed)
    base_loss = copy.deepcopy(bound.base_loss)  # it may remember things, and this run may not be its last
    fed = training_data(bound, run_models, data, ready.sampler, student, teacher)
    pairs = ready.pairs
    if isinstance(bound.layers, MeasuringLayerMapper):
        assert teacher is not None
        compare = partial(similarity, bound.layers, fed, spec.seed, student, teacher)
        pairs = measured_layers(bound.layers, run_models, compare, folder.key_layers)
    aligner = alignment(bound, run_models, pairs)
    distiller = Distiller(student, teacher, base_loss, aligner, pairs, ready.loss_layers)
    rate = spec.alignment.projection_learning_rate if spec.alignment else 0.0
    geometry = SpanGeometry(distiller, fed, run_models.tokenizer, folder.geometry)
    geometry.before()
    log = train(distiller, fed, spec.training, spec.seed, folder.path, rate)
    geometry.after()
    if processes().is_main_process:
        write_json(folder.training_log, asdict(log))
        save_student(student, run_models.tokenizer, folder.student)
    processes().wait_for_everyone()


def _evaluate(
    bound: BoundRun, ready: Ready, run_models: RunModels, folder: RunFolder, teacher_folder: Path | None
) -> EvaluationFacts | None:
    section = bound.spec.evaluation
    if section is None:
        return None
    loaders: dict[str, Callable[[], Any]] = {
        "student": lambda: run_models.exported_student(folder.student),
        "teacher": run_models.teacher,
        "initial_student": run_models.initial_student,
    }
    identities = fingerprints(bound.spec, folder.student, teacher_folder)
    tokenizers = {"teacher": run_models.teacher_tokenizer or run_models.tokenizer}
    sets = {"teacher": ready.teacher_sets}
    stored = {"student": SavedModel(folder.student, DTYPE_OF_PRECISION[bound.spec.training.precision])}
    candidates = [
        Candidate(
            name,
            identities[name],
            tokenizers.get(name, run_models.tokenizer),
            loaders[name],
            sets.get(name, ready.sets),
            stored.get(name),
        )
        for name in section.models
    ]
    sampling = Sampling(section.temperature, section.top_p, section.max_new_tokens, section.batch_tokens)
    predictions, cache = folder.path / "predictions", bound.spec.metric_cache
    return aggregate(evaluate(candidates, bound.metrics, sampling, section.seeds, predictions, cache, section.engine))


def _report(
    bound: BoundRun, ready: Ready, folder: RunFolder, scores: EvaluationFacts | None, clock: Clock, command: str
) -> Report:
    log = TrainingLog(**read_json(folder.training_log))
    report = Report(
        name=bound.spec.name,
        spec=summary.resolved(bound),
        evaluation=scores,
        layer_pairs=recorded_layers(folder.key_layers) if folder.key_layers.is_file() else ready.pairs,
        models=summary.model_facts(ready.run_models),
        data=summary.data_facts(ready.data),
        spans=summary.span_facts(ready.data.train),
        unparsed=ready.data.unparsed,
        log=tuple(log.history),
        steps=log.total_steps,
        seconds_per_step=log.seconds / log.steps if log.steps else None,
        timings=clock.seconds,
        versions={**environment(processes().device), "processes": str(processes().num_processes)},
        student_folder=folder.student.name,
        step_time=log.step_time,
        geometry=recorded_geometry(folder.geometry),
        span_samples=summary.span_samples(ready.data),
        command=command,
    )
    if processes().is_main_process:
        write_report(folder.path, report)
    processes().wait_for_everyone()
    return report
