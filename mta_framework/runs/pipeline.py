"""The stages of ``mta run`` and ``mta evaluate``, in order: the file to read first.

    run        preparation -> the teacher's own run -> training -> evaluation -> report
    evaluate   preparation ->                                      evaluation -> report

Every stage takes a bound spec, whose plugins exist already, and returns a value. What a folder has of a stage is kept.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel, set_seed

from mta_framework.distributed import mesh, processes, run_on_main
from mta_framework.evaluation.aggregation import aggregate
from mta_framework.evaluation.environment import environment
from mta_framework.evaluation.evaluate import Candidate, evaluate_models
from mta_framework.evaluation.report import Report, ReportedEvaluation
from mta_framework.generation.sampling_settings import Sampling
from mta_framework.interfaces import MeasuringLayerMapper
from mta_framework.models.export import save_adapters, save_student
from mta_framework.models.fingerprint import Content
from mta_framework.models.run_models import RunModels
from mta_framework.models.sharding import gathered, plain_copy
from mta_framework.models.teacher_states import Teacher
from mta_framework.registry import describe
from mta_framework.reporting.report_files import write_report
from mta_framework.runs import summary
from mta_framework.runs.build import (
    alignment,
    chosen_layers,
    collator_of,
    fit_alignment,
    measured_layers,
    require_final_norms,
    similarity,
    training_data,
)
from mta_framework.runs.cached_teacher import RunCache
from mta_framework.runs.candidates import evaluated_model, models_of_run
from mta_framework.runs.folder import RunFolder, open_run_folder
from mta_framework.runs.inputs import contents
from mta_framework.runs.manifest import publish_student
from mta_framework.runs.memory import estimated_memory
from mta_framework.runs.plan import Plan, selection_text
from mta_framework.runs.plugin_binding import BoundEvaluation, BoundRun
from mta_framework.runs.preparation import RunInputs, prepare_evaluation, prepare_run
from mta_framework.runs.resume import require_free, require_same, require_same_evaluation
from mta_framework.runs.span_geometry import SpanGeometry
from mta_framework.storage import write_json
from mta_framework.teacher_cache.cache_plan import CachePlan
from mta_framework.timers import Clock
from mta_framework.training.arguments import CHECKPOINTS
from mta_framework.training.distiller import Distiller
from mta_framework.training.sharded_trainer import shard_distiller
from mta_framework.training.train import total_steps, train
from mta_framework.types import LayerPair, LayerSimilarity


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
    clock, folder = Clock(), RunFolder.of(bound.spec)
    require_free(bound, resume)
    with clock.stage("data"):
        inputs = prepare_run(bound)
    with clock.stage("teacher run"):
        teacher_folder = _teacher_folder(bound.teacher)
    run_models = RunModels(bound.spec, teacher_folder, device=processes().device)
    with _held_folder(bound, partial(require_free, bound, resume)) as known:
        if not folder.is_trained:
            with clock.stage("training"):
                _train(bound, inputs, run_models, folder, known)
            gc.collect()  # the trainer and its callbacks hold each other, and with them optimiser and both models
        with clock.stage("evaluation"):
            scores = _evaluate(bound, models_of_run(bound.spec, inputs, run_models, known))
        return _report(bound, scores, clock, command, known, **summary.run_fields(bound, inputs))


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


def plan(bound: BoundRun, with_memory: bool = True) -> Plan:
    """Plan a run without training: spans are parsed and cached, but no weights are read.

    Args:
        bound: The run.
        with_memory: Whether the peak memory is estimated, for which a step of the plugins' code is run.
    """
    inputs = prepare_run(bound)
    run_models = inputs.run_models
    policy = bound.base_loss.batch_policy()
    return Plan(
        summary.reported_models(run_models),
        summary.reported_data(inputs),
        summary.reported_spans(inputs.data.train),
        inputs.pairs,
        total_steps(bound.spec.training, inputs.sampler),
        estimated_memory(bound, inputs) if with_memory else None,
        inputs.data.unparsed,
        inputs.loss_layers,
        describe(policy) if policy else None,
        summary.count_supervised(inputs.data) if bound.spec.data.supervise == "all" else None,
        isinstance(bound.layers, MeasuringLayerMapper),
        _selection(bound, inputs),
        summary.run_ends(inputs),
        _cache_plan(bound, inputs, run_models),
    )


def _cache_plan(bound: BoundRun, inputs: RunInputs, run_models: RunModels) -> CachePlan | None:
    cache = _cache(bound, inputs, run_models, contents(bound))
    if cache is None:
        return None
    with torch.device("meta"):
        aligner = alignment(bound, run_models, inputs.pairs)
    return cache.plan(aligner, inputs.pairs)


def _selection(bound: BoundRun, inputs: RunInputs) -> str:
    metric, prompts = bound.answer_metric, inputs.answer_prompts
    answered = len(prompts.used) if prompts else 0
    return selection_text(bound.spec.training, metric is not None and metric.HIGHER_IS_BETTER, answered)


def _teacher_folder(teacher: BoundRun | None) -> Path | None:
    """The exported student of ``teacher.run``; the run is begun, or gone on with, unless it is finished."""
    if teacher is None:
        return None
    folder = RunFolder.of(teacher.spec)
    if folder.is_finished:
        require_same(teacher)
    else:
        run(teacher, resume=True)
    return folder.student


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
    load = partial(run_models.teacher, device="cpu" if sharded else None)  # no device may have room for it
    cache = _cache(bound, inputs, run_models, known)
    teacher = cache.make_teacher() if cache else Teacher(load) if spec.teacher else None
    if cache or teacher is None:
        student = run_models.first_student()
    else:
        student = run_models.student(cast(PreTrainedModel, teacher.model))
    writers = student, teacher
    if sharded:
        writers = plain_copy(student), Teacher.of(plain_copy(teacher.model)) if teacher and not cache else teacher
    set_seed(spec.seed)
    base_loss = copy.deepcopy(bound.base_loss)  # it may keep state, and this run may not be its last
    data = training_data(bound, run_models, inputs.data, inputs.sampler, *writers)
    pairs = _key_layers(bound, inputs, run_models, cache, student, teacher)
    aligner, report_collator = alignment(bound, run_models, pairs), data.collator
    if cache and teacher is not None:
        kept = cache.opened(aligner, pairs)
        cache.fill(kept, teacher, data.collator)
        report_collator = data.collator.with_teacher_records(kept.reader(for_report=True))
        data = replace(data, collator=data.collator.with_teacher_records(kept.reader()))
        if not (data.policy and "teacher" in data.policy.RESPONDERS):
            teacher.release()
    if aligner is not None and teacher is not None and run_models.teacher_summary is not None:
        require_final_norms(aligner, run_models.teacher_summary.shape.num_layers, student, teacher)
        fit_alignment(aligner, data, spec.seed, student, teacher, folder.path / CHECKPOINTS)
    distiller = Distiller(student, teacher, base_loss, aligner, pairs, inputs.loss_layers)
    if sharded:
        shard_distiller(distiller, None if cache else teacher, mesh())
    rate = spec.alignment.projection_learning_rate if spec.alignment else 0.0
    geometry = SpanGeometry(distiller, data, report_collator, run_models.tokenizer, folder.geometry)
    geometry.before()
    log = train(distiller, data, spec.training, spec.seed, folder.path, rate)
    geometry.after()
    with gathered(writers[0]):
        if processes().is_main_process:
            write_json(folder.training_log, asdict(log))
            unpublished = folder.path / "student.unpublished"
            if spec.student.exports_adapters:
                save_adapters(writers[0], run_models.tokenizer, unpublished)
            else:
                save_student(writers[0], run_models.tokenizer, run_models.turn_end.stop_ids, unpublished)
            publish_student(folder, unpublished)
        processes().wait_for_everyone()


def make_cache(bound: BoundRun) -> tuple[Path, int]:
    """Make what a run reads of its teacher, without training: the teacher's own run is trained first, if it has any.

    Args:
        bound: A sound spec with ``teacher.cache`` or ``teacher.server``.

    Returns:
        Folder of the teacher in the cache, and the number of texts that the teacher was run on or its server asked for.

    Raises:
        InputError: Data or models do not fit the spec.
        RunError: The cache cannot be made; what was made by then is kept.
    """
    inputs = prepare_run(bound)
    run_models = RunModels(bound.spec, _teacher_folder(bound.teacher), device=processes().device)
    known = run_on_main(lambda: contents(bound))
    cache = _cache(bound, inputs, run_models, known)
    assert cache is not None
    teacher, pairs = cache.make_teacher(), inputs.pairs
    if isinstance(bound.layers, MeasuringLayerMapper):
        student = run_models.first_student()
        measure = _measurement(bound.layers, bound, inputs, run_models, cache, student, teacher)
        pairs = chosen_layers(bound.layers, run_models, measure)
    aligner = alignment(bound, run_models, pairs)
    return cache.folder, cache.fill(cache.opened(aligner, pairs), teacher, collator_of(bound, run_models))


def _cache(bound: BoundRun, inputs: RunInputs, run_models: RunModels, known: Mapping[str, Content]) -> RunCache | None:
    teacher = bound.spec.teacher
    return None if teacher is None or not teacher.keeps_records else RunCache(bound, inputs, run_models, known)


def _key_layers(
    bound: BoundRun,
    inputs: RunInputs,
    run_models: RunModels,
    cache: RunCache | None,
    student: nn.Module,
    teacher: Teacher | None,
) -> tuple[LayerPair, ...]:
    """The key layers, measured where the layer mapper asks for it; kept in the run folder and the teacher cache."""
    mapper = bound.layers
    if not isinstance(mapper, MeasuringLayerMapper):
        return inputs.pairs
    assert teacher is not None
    measure = _measurement(mapper, bound, inputs, run_models, cache, student, teacher)
    return measured_layers(mapper, run_models, measure, RunFolder.of(bound.spec).key_layers)


def _measurement(
    mapper: MeasuringLayerMapper,
    bound: BoundRun,
    inputs: RunInputs,
    run_models: RunModels,
    cache: RunCache | None,
    student: nn.Module,
    teacher: Teacher,
) -> Callable[[], LayerSimilarity]:
    """Measures the similarity of layers, or reads it from the teacher cache."""
    texts = inputs.data.train.examples, collator_of(bound, run_models)
    compare = partial(similarity, mapper, *texts, bound.spec.seed, student, teacher)
    return compare if cache is None else partial(cache.similarity, mapper, compare)


def _evaluate(bound: BoundRun | BoundEvaluation, candidates: Sequence[Candidate]) -> ReportedEvaluation | None:
    """Generate responses and score them; None where the spec evaluates nothing."""
    spec, section = bound.spec, bound.spec.evaluation
    if section is None:
        return None
    sampling = Sampling(section.temperature, section.top_p, section.max_new_tokens, section.batch_tokens)
    folder, cache = RunFolder.of(spec).predictions, spec.metric_cache
    how = section.engine, section.strip_reasoning
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
    versions = {**environment(processes().device, bound.packages), "processes": str(processes().num_processes)}
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
