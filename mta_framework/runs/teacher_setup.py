"""One teacher of a run: itself or its cache, and what training gets of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import nn

from mta_framework.data.batches import Collator
from mta_framework.interfaces import MeasuringLayerMapper
from mta_framework.models.fingerprint import Content, contents_of_teacher
from mta_framework.models.run_models import RunModels
from mta_framework.models.teacher_states import Teacher
from mta_framework.runs.build import (
    alignment,
    chosen_layers,
    collator_of,
    fit_alignment,
    measured_layers,
    require_final_norms,
    similarity,
)
from mta_framework.runs.cached_teacher import RunCache
from mta_framework.runs.folder import RunFolder
from mta_framework.runs.plugin_binding import BoundRun
from mta_framework.runs.preparation import RunInputs
from mta_framework.spec.several_teachers import faults_of_teacher, teacher_field
from mta_framework.teacher_cache.cache_plan import CachePlan
from mta_framework.training.arguments import CHECKPOINTS
from mta_framework.training.distiller import TeacherLosses
from mta_framework.training.training_data import TrainingData
from mta_framework.types import LayerPair, LayerSimilarity


@dataclass(frozen=True)
class PreparedTeacher:
    """What training gets of one teacher.

    Args:
        losses: What the teacher adds to the loss.
        collator: Makes batches of its texts, with its records where these are kept.
        report_collator: The same with the records that the report reads besides.
    """

    losses: TeacherLosses
    collator: Collator
    report_collator: Collator


class TeacherSetup:
    """One teacher of a run, or a run without any.

    Args:
        bound: The run, as the teacher sees it.
        inputs: What was prepared for it, likewise.
        run_models: Loads student and teacher.
        known: Content of the inputs by dotted field, on the main process.
        device: Device that the teacher is loaded to; None: that of all models.
    """

    def __init__(
        self,
        bound: BoundRun,
        inputs: RunInputs,
        run_models: RunModels,
        known: Mapping[str, Content],
        device: torch.device | str | None = None,
    ):
        self._bound = bound
        self._inputs = inputs
        self._run_models = run_models
        self._device = device
        kept = bound.reads_teacher and bound.spec.teacher is not None and bound.spec.teacher.keeps_records
        self.cache = RunCache(bound, inputs, run_models, known) if kept else None
        """The teacher's cache; None where nothing is kept."""

    @property
    def field(self) -> str:
        """Dotted name of the teacher in the spec."""
        return teacher_field(self._bound.teacher_name)

    @cached_property
    def teacher(self) -> Teacher | None:
        """The teacher; its model is loaded when it is needed. None in a run without any."""
        if self.cache is not None:
            return self.cache.make_teacher()
        load = partial(self._run_models.teacher, device=self._device)
        return Teacher(load) if self._bound.spec.teacher else None

    @property
    def live_model(self) -> nn.Module | None:
        """The model that training runs in each step, loaded when this is read; None where it runs none."""
        if self.cache is not None or not self._bound.runs_teacher or self.teacher is None:
            return None
        return self.teacher.model

    def prepare(self, student: nn.Module, data: TrainingData) -> PreparedTeacher:
        """Choose layers, make the alignment, fill the cache, and fit the terms that ask for it.

        A teacher with a cache is released afterwards, so that the next one has room, unless it writes responses.

        Args:
            student: The student.
            data: The training data, of all teachers.

        Raises:
            InputError: A term cannot be computed or fitted.
            RunError: The cache cannot be filled.
        """
        pairs, collator = self._key_layers(student), collator_of(self._bound, self._run_models)
        aligner, report_collator = alignment(self._bound, self._run_models, pairs), collator
        teacher = self.teacher if self._bound.reads_teacher else None
        if self.cache and teacher is not None:
            kept = self.cache.opened(aligner, pairs)
            self.cache.fill(kept, teacher, collator)
            report_collator = collator.with_teacher_records(kept.reader(for_report=True))
            collator = collator.with_teacher_records(kept.reader())
            if not (data.policy and "teacher" in data.policy.RESPONDERS):
                teacher.release()
        if aligner is not None and teacher is not None and self._run_models.teacher_summary is not None:
            depth, checkpoints = self._run_models.teacher_summary.shape.num_layers, self._folder.path / CHECKPOINTS
            texts = self._inputs.data.train.examples, collator
            with faults_of_teacher(self._bound.teacher_name):
                require_final_norms(aligner, depth, student, teacher)
                fit_alignment(aligner, *texts, self._bound.spec.seed, student, teacher, checkpoints)
        return PreparedTeacher(
            TeacherLosses(teacher, aligner, pairs, self._inputs.loss_layers), collator, report_collator
        )

    def make_cache(self) -> tuple[Path, int]:
        """Make what the run reads of the teacher, without training.

        Returns:
            Folder of the teacher in the cache, and the number of texts that it was run on or its server asked for.

        Raises:
            InputError: The key layers cannot be chosen.
            RunError: The cache cannot be made; what was made by then is kept.
        """
        cache, teacher, mapper, pairs = self.cache, self.teacher, self._bound.layers, self._inputs.pairs
        assert cache is not None
        assert teacher is not None
        if isinstance(mapper, MeasuringLayerMapper):
            measure = self._measurement(mapper, self._run_models.first_student())
            pairs = chosen_layers(mapper, self._run_models, measure)
        aligner = alignment(self._bound, self._run_models, pairs)
        collator = collator_of(self._bound, self._run_models)
        texts = cache.fill(cache.opened(aligner, pairs), teacher, collator)
        teacher.release()
        return cache.folder, texts

    def cache_plan(self) -> CachePlan | None:
        """Plan what the cache would hold and lacks; None where nothing is kept."""
        if self.cache is None:
            return None
        with torch.device("meta"):
            aligner = alignment(self._bound, self._run_models, self._inputs.pairs)
        return self.cache.plan(aligner, self._inputs.pairs)

    @property
    def _folder(self) -> RunFolder:
        return RunFolder.of(self._bound.spec)

    def _key_layers(self, student: nn.Module) -> tuple[LayerPair, ...]:
        """The key layers, measured where the layer mapper asks for it; kept in the run folder and the teacher cache."""
        mapper = self._bound.layers
        if not isinstance(mapper, MeasuringLayerMapper):
            return self._inputs.pairs
        return measured_layers(mapper, self._run_models, self._measurement(mapper, student), self._folder.key_layers)

    def _measurement(self, mapper: MeasuringLayerMapper, student: nn.Module) -> Callable[[], LayerSimilarity]:
        """Measures the similarity of layers, or reads it from the teacher cache."""
        assert self.teacher is not None
        texts = self._inputs.data.train.examples, collator_of(self._bound, self._run_models)
        compare = partial(similarity, mapper, *texts, self._bound.spec.seed, student, self.teacher)
        return compare if self.cache is None else partial(self.cache.similarity, mapper, compare)


def teacher_setups(
    bound: BoundRun,
    inputs: RunInputs,
    run_models: RunModels,
    known: Mapping[str, Content],
    device: torch.device | str | None = None,
) -> dict[str, TeacherSetup]:
    """The teachers of a run by name; a run with one teacher, or without any, has one under ''.

    Args:
        bound: The run as a whole.
        inputs: What was prepared for it.
        run_models: Its models.
        known: Content of the inputs by dotted field, on the main process.
        device: Device that teachers are loaded to; None: that of all models.
    """
    views, models = inputs.views(), run_models.views()
    return {
        name: TeacherSetup(view, views[name], models[name], contents_of_teacher(known, name), device)
        for name, view in bound.views().items()
    }
