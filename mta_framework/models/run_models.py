"""Teacher and student of a run, loaded for training and for evaluation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mta_framework.errors import InputError, faults_of_teacher_run
from mta_framework.models.head_check import check_head
from mta_framework.models.loading import (
    frozen,
    load_adapted,
    load_student,
    load_teacher,
    student_dtype,
    student_field,
    teacher_dtype,
)
from mta_framework.models.model_summary import ModelSummary, summarise_student, summarise_teacher
from mta_framework.models.saved_teacher import require_weights
from mta_framework.models.sources import local_model
from mta_framework.models.tokenizers import (
    check_vocabulary,
    load_student_tokenizer,
    load_teacher_tokenizer,
    shared_tokens,
    vocabulary_difference,
)
from mta_framework.models.turn_end import TurnEnd, settle_turn_end
from mta_framework.spec.run import RunSpec
from mta_framework.spec.several_teachers import faults_of_teacher, teacher_field
from mta_framework.spec.student import StudentSection
from mta_framework.spec.teacher import TeacherSection
from mta_framework.spec.training import DTYPE_OF_PRECISION

Result = TypeVar("Result")


class RunModels:
    """Tokenizers, summaries and models of a run.

    Args:
        spec: Spec of the run.
        teacher_folder: Folder of the student that ``teacher.run`` exported; None without ``teacher.run`` or before it
            has exported one.
        teacher_run: Models of ``teacher.run`` where it has exported nothing yet: enough for summaries. Otherwise None.
        device: Device of the teacher and of models that are evaluated; the student in training stays on the CPU.
        teacher_name: Name of the teacher where there are several, for faults.
    """

    def __init__(
        self,
        spec: RunSpec,
        teacher_folder: Path | None = None,
        teacher_run: RunModels | None = None,
        device: torch.device | str = "cpu",
        teacher_name: str = "",
    ):
        self._spec = spec
        self._teacher_folder = teacher_folder
        self._teacher_run = teacher_run
        self._device = device
        self._teacher_name = teacher_name

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The student's tokenizer.

        Raises:
            InputError: The tokenizer cannot be loaded.
        """
        return load_student_tokenizer(self._spec.student, self._teacher_tokenizer)

    @cached_property
    def tokenizer_difference(self) -> str | None:
        """How the teacher's tokenizer differs from the student's; None where they agree, or there is no teacher."""
        teacher = self._teacher_tokenizer
        return None if teacher is None else vocabulary_difference(self.tokenizer, teacher)

    @property
    def teacher_tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The teacher's tokenizer where it differs from the student's; None otherwise."""
        return None if self.tokenizer_difference is None else self._teacher_tokenizer

    @cached_property
    def shared_tokens(self) -> list[tuple[int, int]] | None:
        """The student's and the teacher's id of each token of both; None where an id means the same to both."""
        teacher = self.teacher_tokenizer
        return None if teacher is None else shared_tokens(self.tokenizer, teacher)

    @cached_property
    def _teacher_tokenizer(self) -> PreTrainedTokenizerBase | None:
        if self._spec.teacher is None:
            return None
        if self._teacher_run is not None:
            with self._teacher_run_faults():
                return self._teacher_run.tokenizer
        return load_teacher_tokenizer(self._spec.teacher, self._teacher_folder)

    @cached_property
    def turn_end(self) -> TurnEnd:
        """What ends a response, of the student and of a teacher that shares its tokenizer."""
        return settle_turn_end(self.tokenizer, self._stored_end_ids)

    @property
    def _stored_end_ids(self) -> set[int]:
        """The end tokens that student, and a teacher that shares its tokenizer, were saved with."""
        summaries = self.summaries.values() if self.teacher_tokenizer is None else [self.student_summary]
        stored_ids = {index for summary in summaries for index in summary.end_ids}
        if self.teacher_tokenizer is None and self._teacher_tokenizer is not None:
            stored_ids.add(self._teacher_tokenizer.eos_token_id)
        return stored_ids

    @cached_property
    def teacher_turn_end(self) -> TurnEnd | None:
        """What ends a response of a teacher with a tokenizer of its own; None where there is no such teacher."""
        if self.teacher_tokenizer is None or self.teacher_summary is None:
            return None
        return settle_turn_end(self.teacher_tokenizer, self.teacher_summary.end_ids)

    @property
    def separate_teacher(self) -> tuple[PreTrainedTokenizerBase, TurnEnd] | None:
        """Tokenizer and end of a response of a teacher whose tokenizer differs from the student's; None otherwise."""
        tokenizer, turn_end = self.teacher_tokenizer, self.teacher_turn_end
        return None if tokenizer is None or turn_end is None else (tokenizer, turn_end)

    @cached_property
    def student_summary(self) -> ModelSummary:
        """Summary of the student, from its configuration alone."""
        dtype = student_dtype(self._spec.student, self._spec.training.precision)
        return summarise_student(self._spec.student, self.teacher_summary, self.tokenizer, dtype)

    @cached_property
    def teacher_summary(self) -> ModelSummary | None:
        """Summary of the teacher, from its configuration alone; None without a teacher."""
        teacher = self._spec.teacher
        if teacher is None:
            return None
        exported = None
        if self._teacher_run is not None:
            with self._teacher_run_faults():
                ends = self._teacher_run.turn_end.stop_ids  # which the export will have
                exported = replace(self._teacher_run.student_summary, end_ids=ends)
        elif self._teacher_folder is not None:
            exported = summarise_student(
                StudentSection(path=str(self._teacher_folder)), None, self._teacher_tokenizer or self.tokenizer
            )
        return summarise_teacher(teacher, exported, self._teacher_dtype(teacher))

    def views(self) -> dict[str, RunModels]:
        """The models as each of several teachers sees them, by its name; with one teacher, or none, these under ''."""
        return {"": self}

    @property
    def summaries(self) -> dict[str, ModelSummary]:
        """The summaries of ``teacher``, where there is one, and ``student``."""
        summaries = {"teacher": self.teacher_summary, "student": self.student_summary}
        return {name: summary for name, summary in summaries.items() if summary is not None}

    def teacher(
        self,
        purpose: str = "training on texts that are not in its cache",
        device: torch.device | str | None = None,
    ) -> PreTrainedModel | None:
        """Load the frozen teacher in its dtype; None without a teacher.

        Args:
            purpose: What needs the teacher, as a noun phrase, for the error.
            device: Device of the loaded teacher; None: that of all models.

        Raises:
            InputError: The teacher cannot be loaded or has no weights, or its head is of an unsupported kind.
        """
        section = self._spec.teacher
        if section is None:
            return None
        device = self._device if device is None else device
        with faults_of_teacher(self._teacher_name):
            require_weights(section.path, "teacher.path", purpose)
            model = load_teacher(section, self._teacher_folder, self._teacher_dtype(section), device)
            check_head(model, "teacher")
            if fault := check_vocabulary(self.teacher_tokenizer or self.tokenizer, model, "teacher"):
                raise InputError([fault])
        return model

    def student(self, teacher: PreTrainedModel | None) -> nn.Module:
        """Load or initialise the student for training: weights that are trained in float32, see ``student_dtype``.

        Args:
            teacher: The loaded teacher, whose blocks ``student.teacher_layers`` copies; None without a teacher.

        Raises:
            InputError: The student cannot be loaded, or its head is of an unsupported kind.
        """
        section = self._spec.student
        if section.teacher_layers is not None and self._spec.teacher is not None and teacher is not None:
            # The student starts from float32 weights, not from weights rounded to the teacher's dtype.
            plain = self._spec.teacher.model_copy(update={"quantization": None})
            exact = teacher.dtype == torch.float32 and plain == self._spec.teacher
            teacher = teacher if exact else load_teacher(plain, self._teacher_folder, "float32")
        dtype = student_dtype(section, self._spec.training.precision)
        model = load_student(section, teacher, self.tokenizer, self._spec.seed, dtype, self._device)
        check_head(model, student_field(section))
        return model

    def first_student(self, teacher_device: torch.device | str | None = None) -> nn.Module:
        """Load the student as ``student`` does, with the teacher only for as long as its blocks are copied.

        Args:
            teacher_device: Device that the teacher is loaded to for it; None: that of all models.
        """
        needs_teacher = self._spec.student.teacher_layers is not None
        return self.student(self.teacher("student.teacher_layers", teacher_device) if needs_teacher else None)

    def initial_student(self) -> nn.Module:
        """Load the student before training, for evaluation: in the dtype of the forward pass, on the device."""
        student = self.first_student()
        return student.eval().to(self._device, getattr(torch, DTYPE_OF_PRECISION[self._spec.training.precision]))

    def exported_student(self, folder: Path) -> nn.Module:
        """Load an exported student for evaluation: in the dtype of the forward pass, on the device.

        Adapters that were exported alone are put onto the model that they were trained on, quantised as it was.

        Args:
            folder: Folder of the exported student, which faults name.

        Raises:
            InputError: The student cannot be loaded.
        """
        section, dtype = self._spec.student, DTYPE_OF_PRECISION[self._spec.training.precision]
        if section.exports_adapters:
            model = load_adapted(section, folder, dtype, self._device)
            return model.eval().to(self._device, getattr(torch, dtype))
        return frozen(local_model(folder, str(folder)), dtype, self._device, attention=section.attention)

    def _teacher_run_faults(self) -> AbstractContextManager[None]:
        assert self._spec.teacher is not None
        assert self._spec.teacher.run is not None
        return faults_of_teacher_run(self._spec.teacher.run)

    def _teacher_dtype(self, section: TeacherSection) -> str:
        return teacher_dtype(section, self._spec.training.precision)


class SeveralTeachers(RunModels):
    """Tokenizers, summaries and models of a run with several teachers; ``views`` has each with the student.

    Args:
        spec: Spec of the run, with ``teachers``.
        device: Device of teachers and of models that are evaluated.
    """

    def __init__(self, spec: RunSpec, device: torch.device | str = "cpu"):
        super().__init__(spec, device=device)
        self._views = {
            name: RunModels(spec.with_teacher(name), device=device, teacher_name=name) for name in spec.teacher_names
        }

    def views(self) -> dict[str, RunModels]:
        return self._views

    @property
    def _stored_end_ids(self) -> set[int]:
        return set().union(*(self._of_each(lambda models: models._stored_end_ids)))

    @property
    def summaries(self) -> dict[str, ModelSummary]:
        """The summaries of all teachers, each under ``teachers.NAME``, and of ``student``."""
        summaries = self._of_each(lambda models: models.teacher_summary)
        named = zip(map(teacher_field, self._views), summaries, strict=True)
        return {name: summary for name, summary in named if summary} | {"student": self.student_summary}

    def _of_each(self, read: Callable[[RunModels], Result]) -> list[Result]:
        results = []
        for name, models in self._views.items():
            with faults_of_teacher(name):
                results.append(read(models))
        return results


def run_models_of(spec: RunSpec, teacher_folder: Path | None = None, device: torch.device | str = "cpu") -> RunModels:
    """The models of a run with one teacher or several; arguments as for ``RunModels``."""
    return SeveralTeachers(spec, device) if spec.teachers else RunModels(spec, teacher_folder, device=device)
