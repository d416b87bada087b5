"""The stages of ``mta run`` and ``mta evaluate``, in order: the file to read first.

    run        preparation -> the teacher's own run -> training -> evaluation -> report
    evaluate   preparation ->                                      evaluation -> report

Every stage takes a bound spec, whose plugins exist already, and returns a value. What a folder has of a stage is kept.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel, set_seed

from mta_framework.data.batches import Collator
from mta_framework.data.mixed_batches import MixedCollator
from mta_framework.distributed import mesh, processes, run_on_main
from mta_framework.errors import (
    FaultList,
    InputError,
    RunError,
    collect_faults,
    explain_out_of_memory,
    faults_of_teacher_run,
)
from mta_framework.evaluation.aggregation import aggregate
from mta_framework.evaluation.environment import device_name, environment
from mta_framework.evaluation.evaluate import Candidate, evaluate_models
from mta_framework.evaluation.report import Report, ReportedEvaluation
from mta_framework.generation.sampling_settings import Sampling
from mta_framework.interfaces import BaseLoss, MeasuringLayerMapper
from mta_framework.models.export import save_adapters, save_student
from mta_framework.models.fingerprint import Content
from mta_framework.models.machine_memory import for_any_machine, process_memory
from mta_framework.models.run_models import RunModels, run_models_of
from mta_framework.models.sharding import gathered, plain_copy
from mta_framework.models.teacher_states import Teacher
from mta_framework.registry import describe
from mta_framework.reporting.report_files import write_report
from mta_framework.runs import summary
from mta_framework.runs.build import training_data
from mta_framework.runs.candidates import evaluated_model, models_of_run
from mta_framework.runs.folder import RunFolder, open_run_folder
from mta_framework.runs.inputs import contents
from mta_framework.runs.integrity import write_training_log
from mta_framework.runs.manifest import publish_student
from mta_framework.runs.memory import estimated_memory, less_for_evaluation, less_for_training
from mta_framework.runs.plan import Plan, selection_text
from mta_framework.runs.plugin_binding import BoundEvaluation, BoundRun
from mta_framework.runs.plugin_files import note_plugin_files
from mta_framework.runs.preparation import RunInputs, memory_faults, prepare_evaluation, prepare_run
from mta_framework.runs.resume import require_free, require_same_evaluation
from mta_framework.runs.span_geometry import SpanGeometry
from mta_framework.runs.teacher_setup import PreparedTeacher, teacher_setups
from mta_framework.timers import Clock
from mta_framework.training.distiller import Distiller
from mta_framework.training.mixed_distiller import MixedDistiller
from mta_framework.training.sharded_trainer import shard_distiller
from mta_framework.training.train import total_steps, train


def run(bound: BoundRun, resume: bool = False, command: str = "") -> Report:
    """Train, evaluate and report; everything that is done already is kept.

    Args:
        bound: A sound spec with its plugins.
        resume: Whether to go on with a run that was interrupted.
        command: Command line, for the report.

    Returns:
        The report, which also lies in the run folder. Every process of a distributed run returns it.

    Raises:
        InputError: Data, models or the run folder do not fit the spec; nothing was trained.
        RunError: Training or evaluation could not go on; checkpoints and predictions are kept.
    """
    require_free(bound, resume)
    return _run(_prepare(bound), resume, command)


def evaluate(bound: BoundEvaluation, command: str = "") -> Report:
    """Evaluate one model and report: a run without training. What the folder has of the same evaluation is kept.

    Args:
        bound: A sound spec with its metrics.
        command: Command line, for the report.

    Returns:
        The report, which also lies in the folder. Every process of a distributed run returns it.

    Raises:
        InputError: Model, data or folder do not fit the spec; nothing was run.
        RunError: The evaluation could not go on; predictions are kept.
    """
    clock = Clock()
    with clock.stage("data"):
        model, sets = prepare_evaluation(bound)
    with _held_folder(bound, partial(require_same_evaluation, bound)) as known:
        with clock.stage("evaluation"):
            scores = _evaluate(bound, [evaluated_model(bound.spec, model, sets, known)])
        return _report(bound, scores, clock, command, known, **summary.evaluation_fields(bound, model))


def plan(bound: BoundRun, alone: bool = True) -> Plan:
    """Plan a run without training: spans are parsed and cached, but no weights are read.

    Args:
        bound: The run.
        alone: Whether the run stands for itself, not for a cell of a sweep. Then its teacher's runs are looked at, the
            peak memory is estimated, for which a step of the plugins' code is run, and models that are too large for
            this machine are no fault: the run may be planned for another one.

    Raises:
        InputError: Every fault of data, models and files of an earlier attempt.
    """
    with for_any_machine() if alone else nullcontext():
        inputs = _prepare(bound).inputs if alone else prepare_run(bound)
    run_models = inputs.run_models
    policy, caches = bound.base_loss.batch_policy(), teacher_setups(bound, inputs, run_models, contents(bound))
    planned = {each.field: cache_plan for each in caches.values() if (cache_plan := each.cache_plan())}
    return Plan(
        models=summary.reported_models(run_models),
        data=summary.reported_data(inputs),
        spans=summary.reported_spans(inputs.data.train),
        layer_pairs=inputs.pairs,
        steps=total_steps(bound.spec.training, inputs.sampler),
        memory=estimated_memory(bound, inputs) if alone else None,
        unparsed=inputs.data.unparsed,
        loss_layers=inputs.loss_layers,
        trained_on=describe(policy) if policy else None,
        supervised_tokens=summary.count_supervised(inputs.data) if bound.spec.data.supervise == "all" else None,
        measured=isinstance(bound.layers, MeasuringLayerMapper),
        selection=_selection(bound, inputs),
        response_ends=summary.run_ends(inputs),
        teacher_caches=planned,
        teachers=summary.reported_teachers(inputs),
        too_large=tuple(map(str, memory_faults(bound))) if alone else (),
        device=device_name(processes().device) if alone else "",
        memory_here=process_memory(processes().device) if alone else None,
    )


@dataclass(frozen=True)
class _PreparedRun:
    """A run without faults that can be found before it.

    Args:
        bound: The run.
        inputs: Its data and models.
        teacher: The run of its teacher, where that is still to be begun or to be gone on with.
        clock: The time that its own preparation took.
    """

    bound: BoundRun
    inputs: RunInputs
    teacher: _PreparedRun | None
    clock: Clock


def _prepare(bound: BoundRun) -> _PreparedRun:
    """Prepare a run and those that its teacher comes from, and find the faults of all of them."""
    faults, inputs, teacher, clock = FaultList(), None, None, Clock()
    with collect_faults(faults), clock.stage("data"):
        inputs = prepare_run(bound)
    if bound.teacher is not None:
        with collect_faults(faults), faults_of_teacher_run(bound.teacher.path):
            require_free(bound.teacher, resume=True)
            if not RunFolder.of(bound.teacher.spec).is_finished:
                teacher = _prepare(bound.teacher)
    FaultList(dict.fromkeys(faults)).raise_any()
    assert inputs is not None
    return _PreparedRun(bound, inputs, teacher, clock)


def _run(prepared: _PreparedRun, resume: bool, command: str = "") -> Report:
    """The stages after the preparation."""
    bound, inputs, clock = prepared.bound, prepared.inputs, prepared.clock
    folder = RunFolder.of(bound.spec)
    with clock.stage("teacher run"):
        teacher_folder = _run_teacher(prepared)
    run_models = run_models_of(bound.spec, teacher_folder, processes().device)
    with _held_folder(bound, partial(require_free, bound, resume)) as known:
        if not folder.is_trained:
            if processes().is_main_process:
                note_plugin_files(folder, bound.plugin_files)
            with clock.stage("training"), explain_out_of_memory(less_for_training(bound.spec.training)):
                _train(bound, inputs, run_models, folder, known)
            gc.collect()  # the trainer and its callbacks hold each other, and with them optimiser and both models
        with clock.stage("evaluation"), _faults_after_training():
            scores = _evaluate(bound, models_of_run(bound.spec, inputs, run_models, known))
        return _report(bound, scores, clock, command, known, **summary.run_fields(bound, inputs))


@contextmanager
def _faults_after_training() -> Iterator[None]:
    """Turn faults that the evaluation meets into a ``RunError``: by then a student is trained."""
    try:
        yield
    except InputError as error:
        hint = "The student is trained and kept: correct this, then continue with --resume."
        raise RunError(f"{error}\n{hint}") from error


def _run_teacher(prepared: _PreparedRun) -> Path | None:
    """The exported student of ``teacher.run``, if the run has one; that is made first unless it is finished."""
    if (teacher := prepared.bound.teacher) is None:
        return None
    if prepared.teacher is not None:
        with faults_of_teacher_run(teacher.path):
            try:
                _run(prepared.teacher, resume=True)
            except RunError as error:
                if isinstance(error.__cause__, InputError):  # of its evaluation, whose spec is another
                    raise RunError(f"teacher.run: {teacher.path}: {error}") from error
                raise
    return RunFolder.of(teacher.spec).student


def _selection(bound: BoundRun, inputs: RunInputs) -> str:
    metric, prompts = bound.answer_metric, inputs.answer_prompts
    answered = len(prompts.used) if prompts else 0
    return selection_text(bound.spec.training, metric is not None and metric.HIGHER_IS_BETTER, answered)


@contextmanager
def _held_folder(bound: BoundRun | BoundEvaluation, require_free: Callable[[], None]) -> Iterator[dict[str, Content]]:
    """Locks the folder for all processes, of which the main one alone writes to it, and knows the inputs' content."""
    if not processes().is_main_process:
        yield {}
        return
    known = contents(bound)
    with open_run_folder(bound.spec, require_free, known):
        yield known


def _train(
    bound: BoundRun, inputs: RunInputs, run_models: RunModels, folder: RunFolder, known: Mapping[str, Content]
) -> None:
    """Train the student and export it."""
    spec = bound.spec
    sharded = spec.training.sharding is not None and processes().num_processes > 1
    device = "cpu" if sharded else None  # no device may have room for a whole teacher
    setups = teacher_setups(bound, inputs, run_models, known, device)
    live = [model for each in setups.values() if (model := each.live_model) is not None]
    single = setups.get("")
    teacher = single.teacher if single else None
    first = cast(PreTrainedModel, live[0]) if single and live else None
    student = run_models.first_student(device) if first is None else run_models.student(first)
    whole_student, whole_teacher = student, teacher  # those that write responses
    if sharded:
        whole_student, whole_teacher = plain_copy(student), Teacher.of(plain_copy(live[0])) if live else teacher
    set_seed(spec.seed)
    base_loss = copy.deepcopy(bound.base_loss)  # it may keep state, and this run may not be its last
    data = training_data(bound, run_models, inputs.data, inputs.sampler, whole_student, whole_teacher)
    prepared = {name: each.prepare(student, data) for name, each in setups.items()}
    distiller, collator, report_collator = _distiller(student, base_loss, prepared, inputs)
    data = replace(data, collator=collator)
    if sharded:
        shard_distiller(distiller, teacher if live else None, mesh())
    rate = spec.alignment.projection_learning_rate if spec.alignment else 0.0
    geometry = SpanGeometry(distiller, data, report_collator, run_models.tokenizer, folder.geometry)
    geometry.before()
    log = train(distiller, data, spec.training, spec.seed, folder.path, rate)
    geometry.after()
    with gathered(whole_student):
        if processes().is_main_process:
            write_training_log(folder.training_log, log)
            _export(whole_student, spec.student.exports_adapters, run_models, folder)
        processes().wait_for_everyone()


def _export(student: nn.Module, adapters_alone: bool, run_models: RunModels, folder: RunFolder) -> None:
    unpublished = folder.path / "student.unpublished"
    if adapters_alone:
        save_adapters(student, run_models.tokenizer, unpublished)
    else:
        save_student(student, run_models.tokenizer, run_models.turn_end.stop_ids, unpublished)
    publish_student(folder, unpublished)


def _distiller(
    student: nn.Module, base_loss: BaseLoss, prepared: Mapping[str, PreparedTeacher], inputs: RunInputs
) -> tuple[Distiller, Collator | MixedCollator, Collator]:
    """The module that is trained, the collator of its batches, and that of texts that the report measures."""
    if (single := prepared.get("")) is not None:
        losses = single.losses
        parts = losses.teacher, base_loss, losses.alignment, losses.pairs, losses.loss_layers
        return Distiller(student, *parts), single.collator, single.report_collator
    samples = {name: view.data.train.examples[0] for name, view in inputs.views().items()}
    collator = MixedCollator({name: each.collator for name, each in prepared.items()}, samples)
    by_teacher = {name: each.losses for name, each in prepared.items()}
    # With several teachers the report measures none.
    return MixedDistiller(student, base_loss, by_teacher), collator, next(iter(prepared.values())).report_collator


def make_cache(bound: BoundRun) -> dict[str, tuple[Path, int]]:
    """Make what a run reads of its teachers, without training, one teacher after another.

    The teacher's own run is trained first, if it has any.

    Args:
        bound: A sound spec of which a teacher has ``cache`` or ``server``.

    Returns:
        Dotted name of each teacher of which anything is kept -> its folder in the cache, and the number of texts that
        it was run on or its server asked for.

    Raises:
        InputError: Data or models do not fit the spec.
        RunError: The cache cannot be made; what was made by then is kept.
    """
    prepared = _prepare(bound)
    inputs = prepared.inputs
    run_models = run_models_of(bound.spec, _run_teacher(prepared), processes().device)
    known = run_on_main(lambda: contents(bound))
    setups = teacher_setups(bound, inputs, run_models, known).values()
    with explain_out_of_memory("What was made is kept. Set teacher.quantization, or use a larger device."):
        return {each.field: each.make_cache() for each in setups if each.cache}


def _evaluate(bound: BoundRun | BoundEvaluation, candidates: Sequence[Candidate]) -> ReportedEvaluation | None:
    """Generate responses and score them; None where the spec evaluates nothing."""
    spec, section = bound.spec, bound.spec.evaluation
    if section is None:
        return None
    sampling = Sampling(section.temperature, section.top_p, section.max_new_tokens, section.batch_tokens)
    folder, cache = RunFolder.of(spec).predictions, spec.metric_cache
    how = section.engine, section.strip_reasoning
    with explain_out_of_memory(less_for_evaluation(section.batch_tokens)):
        return aggregate(evaluate_models(candidates, bound.metrics, sampling, section.seeds, folder, cache, *how))


def _report(
    bound: BoundRun | BoundEvaluation,
    scores: ReportedEvaluation | None,
    clock: Clock,
    command: str,
    known: Mapping[str, Content],
    **fields: Any,
) -> Report:
    """Write the report; ``fields`` are the fields that runs and evaluations fill in each in its own way."""
    software = environment(processes().device, bound.packages, bound.plugin_files)
    versions = {**software, "processes": str(processes().num_processes)}
    report = Report(
        bound.spec.name,
        inputs=known,
        evaluation=scores,
        timings=clock.seconds,
        versions=versions,
        command=command,
        **fields,
    )
    if processes().is_main_process:
        write_report(RunFolder.of(bound.spec).path, report)
    processes().wait_for_everyone()
    return report
