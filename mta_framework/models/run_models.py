"""Teacher and student of one run: how each is loaded, for training and for evaluation."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mta_framework.errors import InputError
from mta_framework.models.head_check import check_head
from mta_framework.models.loading import load_student, load_teacher, pretrained, student_field, teacher_dtype
from mta_framework.models.model_summary import ModelSummary, summarise_student, summarise_teacher
from mta_framework.models.sources import local_model
from mta_framework.models.tokenizers import (
    check_vocabulary,
    difference,
    load_student_tokenizer,
    load_teacher_tokenizer,
)
from mta_framework.spec.run import RunSpec
from mta_framework.spec.student import StudentSection
from mta_framework.spec.teacher import TeacherSection
from mta_framework.spec.training import DTYPE_OF_PRECISION


class RunModels:
    """The models of a run.

    Args:
        spec: Of the run.
        teacher_folder: The student that ``teacher.run`` exported, or None.
        teacher_run: The lineup of ``teacher.run`` where nothing is exported yet: enough for outlines.
        device: Where models for evaluation, and the teacher, are put.
    """

    def __init__(
        self,
        spec: RunSpec,
        teacher_folder: Path | None = None,
        teacher_run: RunModels | None = None,
        device: torch.device | str = "cpu",
    ):
        self._spec = spec
        self._teacher_folder = teacher_folder
        self._teacher_run = teacher_run
        self._device = device

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The student's tokenizer.

        Raises:
            InputError: It can't be loaded.
        """
        return load_student_tokenizer(self._spec.student, self._teacher_tokenizer)

    @cached_property
    def tokenizer_difference(self) -> str | None:
        """How the teacher's tokenizer differs from the student's; None where they are one, or there is no teacher."""
        teacher = self._teacher_tokenizer
        return None if teacher is None else difference(self.tokenizer, teacher)

    @property
    def teacher_tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The teacher's tokenizer where it is another one than the student's; else None."""
        return None if self.tokenizer_difference is None else self._teacher_tokenizer

    @cached_property
    def _teacher_tokenizer(self) -> PreTrainedTokenizerBase | None:
        if self._spec.teacher is None:
            return None
        if self._teacher_run is not None:
            return self._teacher_run.tokenizer
        return load_teacher_tokenizer(self._spec.teacher, self._teacher_folder)

    @cached_property
    def student_summary(self) -> ModelSummary:
        """The student in numbers; no weights are read."""
        return summarise_student(self._spec.student, self.teacher_summary, self.tokenizer)

    @cached_property
    def teacher_summary(self) -> ModelSummary | None:
        """The teacher in numbers, or None; no weights are read."""
        teacher = self._spec.teacher
        if teacher is None:
            return None
        exported = None
        if self._teacher_run is not None:
            exported = self._teacher_run.student_summary
        elif self._teacher_folder is not None:
            exported = summarise_student(
                StudentSection(path=str(self._teacher_folder)), None, self._teacher_tokenizer or self.tokenizer
            )
        return summarise_teacher(teacher, exported, self._teacher_dtype(teacher))

    @property
    def summaries(self) -> dict[str, ModelSummary]:
        """The summaries of ``teacher``, where there is one, and ``student``."""
        summaries = {"teacher": self.teacher_summary, "student": self.student_summary}
        return {name: summary for name, summary in summaries.items() if summary is not None}

    def teacher(self) -> PreTrainedModel | None:
        """The frozen teacher in its own dtype, or None.

        Raises:
            InputError: It can't be loaded, or its head is of an unsupported kind.
        """
        section = self._spec.teacher
        if section is None:
            return None
        model = self._load_teacher(section, self._teacher_dtype(section))
        check_head(model, "teacher")
        if fault := check_vocabulary(self.teacher_tokenizer or self.tokenizer, model, "teacher"):
            raise InputError([fault])
        return model.to(self._device)  # type: ignore[arg-type]

    def student(self, teacher: PreTrainedModel | None) -> nn.Module:
        """The student before training, float32.

        Raises:
            InputError: It can't be loaded, or its head is of an unsupported kind.
        """
        section = self._spec.student
        if section.teacher_layers is not None and self._spec.teacher is not None and teacher is not None:
            # The student's weights are float32 from the start, not rounded to the dtype that the teacher runs in.
            exact = teacher.dtype == torch.float32
            teacher = teacher if exact else self._load_teacher(self._spec.teacher, "float32")
        model = load_student(section, teacher, self.tokenizer, self._spec.seed)
        check_head(model, student_field(section))
        return model

    def initial_student(self) -> nn.Module:
        """The student before training, as it is evaluated: in the dtype of the forward pass."""
        needs_teacher = self._spec.student.teacher_layers is not None
        student = self.student(self.teacher() if needs_teacher else None)
        return student.eval().to(self._device, getattr(torch, DTYPE_OF_PRECISION[self._spec.training.precision]))

    def exported_student(self, folder: Path) -> PreTrainedModel:
        """A student that was trained and exported, as it is evaluated.

        Raises:
            InputError: It can't be loaded; the fault names the folder.
        """
        dtype = getattr(torch, DTYPE_OF_PRECISION[self._spec.training.precision])
        model = pretrained(local_model(folder, str(folder)), dtype).eval().requires_grad_(False)
        return model.to(self._device)  # type: ignore[arg-type]

    def _load_teacher(self, section: TeacherSection, dtype: str) -> PreTrainedModel:
        return load_teacher(section, self._teacher_folder, dtype)

    def _teacher_dtype(self, section: TeacherSection) -> str:
        return teacher_dtype(section, self._spec.training.precision)
