"""The first stage of a run or an evaluation: everything that is known before anything slow starts.

No weights are loaded and nothing is trained; every fault that can be found by then is reported at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from mta_framework.data.batches import GroupedSampler, validation_fault
from mta_framework.data.prepare import PreparedData, prepare
from mta_framework.data.row_teachers import texts_of
from mta_framework.distributed import processes, run_on_main
from mta_framework.errors import Fault, InputError, collect_faults
from mta_framework.evaluation.evaluate import EvaluationSet
from mta_framework.evaluation.sets import read_sets
from mta_framework.generation.engines import engine_fault
from mta_framework.interfaces import Metric
from mta_framework.models.evaluated import EvaluatedModel
from mta_framework.models.run_models import RunModels, run_models_of
from mta_framework.models.turn_end import TurnEnd
from mta_framework.runs.build import alignment_layers, span_cache_folder
from mta_framework.runs.folder import RunFolder
from mta_framework.runs.integrity import require_whole
from mta_framework.runs.layer_checks import base_loss_layers, require_terms
from mta_framework.runs.manifest import input_faults
from mta_framework.runs.model_checks import (
    block_faults,
    evaluation_faults,
    gpu_faults,
    idle_teacher_faults,
    joint_memory_fault,
    length_faults,
    spanless_faults,
    tokenizer_faults,
    unit_fault,
    warn_of_size,
    warn_of_unused_keys,
    weight_faults,
)
from mta_framework.runs.plugin_binding import BoundEvaluation, BoundRun
from mta_framework.runs.resume import require_same_evaluation
from mta_framework.runs.validation_answers import AnswerPrompts, answer_prompts
from mta_framework.spec.run import RunSpec
from mta_framework.spec.several_teachers import faults_of_teacher, named_fault
from mta_framework.training.train import sampler_for
from mta_framework.types import Example, LayerPair

_ENGINE = "training.generation.engine"


@dataclass(frozen=True)
class RunInputs:
    """What a run works with.

    Args:
        run_models: Teacher and student, of which only configurations and tokenizers are read.
        pairs: Key layers of the alignment.
        loss_layers: Pairs of student layer and teacher layer that the base loss reads.
        data: Training and validation texts, tokenised, with their spans.
        sampler: Cuts each epoch of the training texts into batches.
        sets: Evaluation sets, tokenised for the student.
        teacher_sets: The same sets, tokenised for the teacher.
        answer_prompts: Validation prompts whose answers choose the best checkpoint; None where they do not.
        teachers: What was settled for each of several teachers, by its name; empty where there is one, or none.
        all_train: Training texts of all teachers, from which ``sampler`` draws, in the view of one; None: ``data`` has
            them all.
    """

    run_models: RunModels
    pairs: tuple[LayerPair, ...]
    loss_layers: tuple[tuple[int, int], ...]
    data: PreparedData
    sampler: GroupedSampler
    sets: list[EvaluationSet]
    teacher_sets: list[EvaluationSet]
    answer_prompts: AnswerPrompts | None = None
    teachers: Mapping[str, FittedTeacher] = field(default_factory=dict)
    all_train: Sequence[Example] | None = None

    def views(self) -> dict[str, RunInputs]:
        """The inputs as each of several teachers sees them, by its name; with one teacher, or none, these under ''."""
        if not self.teachers:
            return {"": self}
        return {name: self._view(name, fitted) for name, fitted in self.teachers.items()}

    def _view(self, name: str, fitted: FittedTeacher) -> RunInputs:
        data, validation = self.data, self.data.validation
        validation = validation and texts_of(validation, name)
        of_teacher = replace(
            data,
            train=texts_of(data.train, name),
            validation=validation if validation and validation.examples else None,
        )
        return replace(
            self,
            run_models=self.run_models.views()[name],
            pairs=fitted.pairs,
            loss_layers=fitted.loss_layers,
            data=of_teacher,
            teacher_sets=fitted.sets,
            teachers={},
            all_train=data.train.examples,
        )


def prepare_run(bound: BoundRun) -> RunInputs:
    """Summarise the models of a run, choose its layers, read its data and parse the spans.

    Raises:
        InputError: Every fault of data, models and files of an earlier attempt.
        RunError: A plugin breaks its contract.
    """
    require_whole(bound)
    spec, run_models = bound.spec, summarised_models(bound)
    faults = _setting_faults(bound)
    fitted = {name: _fit_teacher(view, run_models.views()[name], faults) for name, view in bound.views().items()}
    for check in (joint_memory_fault, unit_fault):
        with collect_faults(faults):
            faults += [fault for fault in [check(bound, run_models)] if fault]
    with collect_faults(faults):
        sets = _sets(spec, run_models.tokenizer, run_models.turn_end)
        faults += _likelihood_faults(bound.metrics, sets)
    with collect_faults(faults), processes().main_process_first():  # the others read its spans from the cache
        folder = span_cache_folder(spec)
        data = prepare(
            spec.data,
            run_models.tokenizer,
            run_models.turn_end,
            bound.spans,
            folder,
            {
                name: models.separate_teacher if bound.runs_teacher else None
                for name, models in run_models.views().items()
            },
            check_only=bool(faults),
        )
        faults += [*(spanless_faults(bound, data.train) if not faults else ()), *idle_teacher_faults(spec, data.train)]
        sampler = sampler_for(data.train.examples, spec.training, spec.seed)
        if data.validation and (fault := validation_fault(len(data.validation.examples), processes().num_processes)):
            faults.append(fault)
    if faults:
        raise InputError(faults)
    prompts = answer_prompts(spec, bound.answer_metric, run_models.tokenizer) if bound.answer_metric else None
    warn_of_size(run_models)
    warn_of_unused_keys({**data.unused, **_unused_in(sets, spec.data.teacher_field)})
    placed = {name: replace(fit, sets=fit.sets or sets) for name, fit in fitted.items()}
    if (single := placed.get("")) is not None:
        return RunInputs(run_models, single.pairs, single.loss_layers, data, sampler, sets, single.sets, prompts)
    return RunInputs(run_models, (), (), data, sampler, sets, sets, prompts, placed)


def memory_faults(bound: BoundRun) -> list[Fault]:
    """Faults of models of a planned run whose weights do not fit into this machine, alone or together."""
    run_models, faults = summarised_models(bound), list[Fault]()
    for name, models in run_models.views().items():
        with collect_faults(faults), faults_of_teacher(name):
            _ = models.teacher_summary
    with collect_faults(faults):
        _ = run_models.student_summary
    if not faults and (fault := joint_memory_fault(bound, run_models)):
        faults.append(fault)
    return [*dict.fromkeys(faults)]


@dataclass(frozen=True)
class FittedTeacher:
    """What was settled for a teacher and the student.

    Args:
        pairs: Key layers of the alignment.
        loss_layers: Pairs of student layer and teacher layer that the base loss reads.
        sets: Evaluation sets, tokenised for a teacher with a tokenizer of its own; empty for any other.
    """

    pairs: tuple[LayerPair, ...] = ()
    loss_layers: tuple[tuple[int, int], ...] = ()
    sets: list[EvaluationSet] = field(default_factory=list)


def _fit_teacher(bound: BoundRun, run_models: RunModels, every: list[Fault]) -> FittedTeacher:
    """Choose the layers of one teacher, and collect the faults of teacher and student in ``every``, each once."""
    spec, faults = bound.spec, weight_faults(bound)
    with collect_faults(faults):
        faults += length_faults(bound, run_models)
    faults += evaluation_faults(spec.evaluation, bound.metrics, lambda: _evaluated_configs(bound, run_models))
    pairs: tuple[LayerPair, ...] = ()
    with collect_faults(faults):
        pairs = alignment_layers(bound.layers, run_models)
        if teacher_summary := run_models.teacher_summary:
            require_terms(bound.terms, pairs, run_models.student_summary.shape, teacher_summary.shape)
    loss_layers: tuple[tuple[int, int], ...] = ()
    with collect_faults(faults):
        loss_layers = base_loss_layers(bound.base_loss, run_models)
    with collect_faults(faults):
        reads_layers = bound.layers is not None or bool(loss_layers)
        if reads_layers or spec.training.sharding is not None:
            faults += block_faults(bound, run_models, reads_layers)
    with collect_faults(faults):
        faults += tokenizer_faults(bound, run_models)
    sets: list[EvaluationSet] = []
    with collect_faults(faults):
        if teacher := run_models.separate_teacher:
            sets = _sets(spec, *teacher)
            faults += _likelihood_faults(bound.metrics, sets)
    named = (named_fault(fault, bound.teacher_name) for fault in faults)
    every += dict.fromkeys(fault for fault in named if not bound.teacher_name or fault not in every)
    return FittedTeacher(pairs, loss_layers, sets)


def _sets(spec: RunSpec, tokenizer: PreTrainedTokenizerBase, turn_end: TurnEnd) -> list[EvaluationSet]:
    data = spec.data
    template = data.template, tokenizer, "data.template", data.template_options
    return read_sets(spec.evaluation, *template, turn_end, data.add_special_tokens)


def prepare_evaluation(bound: BoundEvaluation) -> tuple[EvaluatedModel, list[EvaluationSet]]:
    """Summarise a model that is evaluated by itself, and read its evaluation sets.

    Raises:
        InputError: Every fault of data, model and folder.
    """
    spec, faults, sets = bound.spec, list[Fault](), list[EvaluationSet]()
    model = EvaluatedModel(spec.model, processes().device)
    with collect_faults(faults):
        require_same_evaluation(bound)
    faults += run_on_main(lambda: list(input_faults(spec)))
    faults += evaluation_faults(spec.evaluation, bound.metrics, lambda: [model.summary.config])
    with collect_faults(faults):
        template = spec.template, model.tokenizer, "template", spec.template_options
        sets = read_sets(spec.evaluation, *template, model.turn_end, spec.add_special_tokens)
        faults += _likelihood_faults(bound.metrics, sets)
    if faults:
        raise InputError(faults)
    warn_of_unused_keys(_unused_in(sets, spec.teacher_field))
    return model, sets


def _likelihood_faults(metrics: Iterable[Metric], sets: Iterable[EvaluationSet]) -> list[Fault]:
    if not any(metric.NEEDS_LIKELIHOODS for metric in metrics):
        return []
    return [fault for part in sets if part.unmeasured for fault in part.unmeasured.faults]


def _unused_in(sets: Iterable[EvaluationSet], teacher_field: str) -> dict[str, Mapping[str, int]]:
    """Keys of each set that are not used, without the one that names a teacher in training rows."""
    return {
        f"evaluation.sets.{part.name}": {key: count for key, count in part.unused.items() if key != teacher_field}
        for part in sets
    }


def summarised_models(bound: BoundRun) -> RunModels:
    """The models of a run, as far as they are known before ``teacher.run`` is done."""
    if bound.teacher is None:
        return run_models_of(bound.spec)
    exported = RunFolder.of(bound.teacher.spec)
    if exported.is_trained:
        return RunModels(bound.spec, exported.student)
    return RunModels(bound.spec, teacher_run=summarised_models(bound.teacher))


def _setting_faults(bound: BoundRun) -> list[Fault]:
    """Faults of settings that this machine cannot follow."""
    section, views = bound.spec.training, bound.views().items()
    faults = [*dict.fromkeys(named_fault(fault, name) for name, view in views for fault in gpu_faults(view.spec))]
    if section.generation is not None and (fault := engine_fault(section.generation.engine, _ENGINE)):
        faults.append(fault)
    return faults


def _evaluated_configs(bound: BoundRun, run_models: RunModels) -> list[PreTrainedConfig]:
    section = bound.spec.evaluation
    evaluated = {name.removeprefix("initial_") for name in section.models} if section else set()
    return [summary.config for name, summary in run_models.summaries.items() if name in evaluated]
