"""The teacher cache of a run: what it reads of its teacher, on which texts, and the teacher that answers by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mta_framework.alignment.objective import Alignment
from mta_framework.data.batches import Collator
from mta_framework.models.run_models import RunModels
from mta_framework.models.teacher_states import Teacher
from mta_framework.runs.build import sampled_texts
from mta_framework.runs.plugin_binding import BoundRun
from mta_framework.runs.preparation import RunInputs
from mta_framework.runs.span_geometry import measured_texts
from mta_framework.spec.run import RunSpec
from mta_framework.teacher_cache.filling import TeacherCache, WantedRecords
from mta_framework.teacher_cache.kinds import RecordedRun, TeacherWidths
from mta_framework.training.train import total_steps
from mta_framework.training.training_data import TrainingData
from mta_framework.types import Example, LayerPair


@dataclass(frozen=True)
class CachedTeacher:
    """What training works with where the teacher is cached.

    Args:
        teacher: The teacher; its live model is loaded for texts alone that are not in the cache.
        data: Training data whose batches have the records of their texts.
        report_collator: Makes batches that have the teacher's span vectors too.
    """

    teacher: Teacher
    data: TrainingData
    report_collator: Collator


def cache_folder(spec: RunSpec) -> Path:
    """Directory of the teacher cache, which has a folder for each teacher."""
    section = spec.teacher.cache if spec.teacher else None
    given = None if section is None else section.path
    return Path(given or Path(spec.output_dir) / "teacher-cache")


def recorded_run(
    bound: BoundRun, inputs: RunInputs, run_models: RunModels, aligner: Alignment | None, pairs: Sequence[LayerPair]
) -> RecordedRun:
    """The parts of a run that decide what is kept of its teacher."""
    summary, section = run_models.teacher_summary, bound.spec.teacher
    assert summary is not None and section is not None
    hidden = summary.shape.hidden_size
    final = getattr(summary.config.get_text_config(decoder=True), "word_embed_proj_dim", hidden)
    return RecordedRun(
        TeacherWidths(hidden, final, summary.dtype),
        bound.base_loss,
        inputs.loss_layers,
        pairs,
        () if aligner is None else aligner.terms,
        bound.importance,
        bound.pooling,
        run_models.teacher_tokenizer is None,
        section.cache is not None and section.cache.layer_states == "8bit",
    )


def wanted_records(bound: BoundRun, inputs: RunInputs, run: RecordedRun) -> list[WantedRecords]:
    """The texts that training, validation, fitting and report read, with what they read of each."""
    validation = inputs.data.validation.examples if inputs.data.validation else []
    train = inputs.data.train.examples
    texts = [*_drawn_texts(bound, inputs), *validation]
    texts += [train[index] for index in sampled_texts(len(train), bound.spec.seed, _num_fitted(bound))]
    measured = measured_texts(train, validation, run.pairs)
    return [WantedRecords(texts, run.kinds()), WantedRecords(measured, run.kinds() + run.reported_kinds())]


def _num_fitted(bound: BoundRun) -> int:
    return max((term.num_texts for term in bound.terms), default=0)


def _drawn_texts(bound: BoundRun, inputs: RunInputs) -> list[Example]:
    """The training texts whose responses some step trains on, each once."""
    policy, sampler = bound.base_loss.batch_policy(), inputs.sampler
    if policy is not None and not policy.USES_DATA_RESPONSES:
        return []
    steps, drawn = total_steps(bound.spec.training, sampler), dict[int, None]()
    for epoch in range(-(-steps // sampler.steps_per_epoch)):
        remaining = steps - epoch * sampler.steps_per_epoch
        drawn |= dict.fromkeys(sampler.global_batches(epoch)[:remaining].ravel().tolist())
    return [inputs.data.train.examples[index] for index in sorted(drawn)]


def use_cache(
    bound: BoundRun,
    inputs: RunInputs,
    run_models: RunModels,
    aligner: Alignment | None,
    pairs: Sequence[LayerPair],
    data: TrainingData,
    teacher: Teacher,
    folder: Path,
) -> CachedTeacher:
    """Fill the teacher cache with what is missing, and make the teacher and the data that read it.

    Args:
        bound: The run, with ``teacher.cache``.
        inputs: What was prepared for it.
        run_models: Loads the teacher.
        aligner: The alignment; None without one.
        pairs: Key layers of the alignment.
        data: Training data.
        teacher: The live teacher, which may have been loaded by now.
        folder: Folder of the teacher in the cache.
    """
    run = recorded_run(bound, inputs, run_models, aligner, pairs)
    cache = TeacherCache(folder, run, wanted_records(bound, inputs, run))
    cache.fill(teacher, data.collator)
    ensure_parts(folder, teacher, data)
    collator = data.collator.with_teacher_records(cache.reader(run.kinds()))
    reported = data.collator.with_teacher_records(cache.reader(run.kinds() + run.reported_kinds()))
    return CachedTeacher(teacher, replace(data, collator=collator), reported)
