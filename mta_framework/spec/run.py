"""A run spec: all its sections together. No torch, no plugin code.

Relative paths are relative to the folder of the spec file; loading makes them absolute.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from mta_framework.spec.alignment import AlignmentSection
from mta_framework.spec.data import DataSection
from mta_framework.spec.effects import affects
from mta_framework.spec.evaluation import METRIC_CACHE, EvaluationSection
from mta_framework.spec.section import (
    Contradiction,
    Location,
    Name,
    PluginSection,
    Section,
    Seed,
    TeacherName,
    plugin_family,
    without_effect,
)
from mta_framework.spec.several_teachers import teacher_contradictions, teacher_field
from mta_framework.spec.student import StudentSection
from mta_framework.spec.teacher import TeacherSection
from mta_framework.spec.training import TrainingSection


class RunSpec(Section):
    """One run, with everything that is needed to repeat it."""

    name: Name = Field(
        description="Name of the run and of its folder.", examples=["my-run"], json_schema_extra=affects("nothing")
    )
    seed: Seed = Field(
        42, description="Seed of initialisation, data order and dropout.", json_schema_extra=affects("weights")
    )
    output_dir: Location = Field(
        "runs",
        description="Folder of the runs; the run folder is output_dir/name.",
        validate_default=True,
        json_schema_extra=affects("nothing"),
    )
    teacher: TeacherSection | None = Field(
        None,
        description="Model that the student imitates; null if nothing uses a teacher, or with teachers.",
        json_schema_extra=affects("weights"),
    )
    teachers: dict[TeacherName, TeacherSection] | None = Field(
        None,
        description="Several teachers by name, each for the rows that name it; null: there is one, or none.",
        json_schema_extra=affects("weights"),
    )
    student: StudentSection = Field(
        description="Model that is trained.", examples=[{"hub": "gpt2"}], json_schema_extra=affects("weights")
    )
    data: DataSection = Field(
        description="Training and validation data.",
        examples=[{"train": {"path": "train.jsonl"}}],
        json_schema_extra=affects("weights"),
    )
    base_loss: PluginSection = Field(
        description="Loss to which MTA is added.",
        examples=[{"name": "kl"}],
        json_schema_extra={**plugin_family("base_losses"), **affects("weights")},
    )
    alignment: AlignmentSection | None = Field(
        None,
        description="MTA: the spans and layers that are compared; null: train with the base loss alone.",
        json_schema_extra=affects("weights"),
    )
    training: TrainingSection = Field(
        description="Duration, batches, optimiser and schedule.",
        examples=[{"epochs": 3}],
        json_schema_extra=affects("weights"),
    )
    evaluation: EvaluationSection | None = Field(
        None,
        description="Evaluation of the models after training; null: train only.",
        json_schema_extra=affects("responses"),
    )

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.output_dir) / self.name

    @property
    def metric_cache(self) -> Path:
        """Folder of expensive results of metrics, shared by all runs in ``output_dir``."""
        return Path(self.output_dir) / METRIC_CACHE

    @property
    def teacher_cache(self) -> Path:
        """Folder of the teacher cache, which has a folder for each teacher."""
        section = self.teacher.cache if self.teacher is not None else None
        given = section.path if section is not None else None
        return Path(self.output_dir) / "teacher-cache" if given is None else Path(given)

    @property
    def teacher_sections(self) -> dict[str, TeacherSection]:
        """The section of each teacher by its dotted name: ``teacher``, or ``teachers.NAME`` of several."""
        if self.teachers:
            return {teacher_field(name): section for name, section in self.teachers.items()}
        return {} if self.teacher is None else {"teacher": self.teacher}

    @property
    def teacher_names(self) -> tuple[str, ...]:
        """Names of several teachers; an empty name alone where there is one teacher, or none."""
        return tuple(self.teachers or ("",))

    def with_teacher(self, name: str) -> RunSpec:
        """Make the spec as one teacher sees it: as if there were no other.

        Args:
            name: One of ``teacher_names``.
        """
        if not self.teachers:
            return self
        evaluation = self.evaluation
        if evaluation is not None:
            called = {teacher_field(each): "teacher" if each == name else "" for each in self.teachers}
            models = [model for entry in evaluation.models if (model := called.get(entry, entry))]
            evaluation = evaluation.model_copy(update={"models": models})
        return self.model_copy(update={"teacher": self.teachers[name], "teachers": None, "evaluation": evaluation})

    def contradictions(self) -> Iterator[Contradiction]:
        yield from teacher_contradictions(self)
        if not self.teacher_sections:
            yield from self._teacher_missing()
        if (generation := self.training.generation) is not None:
            room = self.data.max_length - self.data.max_prompt_length
            if generation.max_new_tokens is not None and generation.max_new_tokens > room > 0:
                yield Contradiction(
                    "training.generation.max_new_tokens",
                    ("training.generation.max_new_tokens", "data.max_length", "data.max_prompt_length"),
                    f"leaves some texts longer than data.max_length (got {generation.max_new_tokens})",
                    f"at most {room}, the room after a prompt of {self.data.max_prompt_length} tokens",
                    "Lower it, or raise data.max_length.",
                )
        yield from self._flash_in_float32()
        models: dict[str, StudentSection | TeacherSection] = {"student": self.student, **self.teacher_sections}
        for name, section in models.items():
            if section.quantization is not None and self.training.sharding is not None:
                problem = "makes weights that cannot be divided among processes (got sharding 'fsdp2')"
                involved = (f"{name}.quantization", "training.sharding")
                hint = "Set one of the two to null."
                yield Contradiction(f"{name}.quantization", involved, problem, "null with training.sharding", hint)
        if self.data.validation is None:
            yield from self._validation_missing()
        if self.alignment is None:
            # Not processes and cache_dir: a sweep sets them for all of its cells, those without alignment included.
            for name in ("parse", "leading_character"):
                reason = "without alignment, where no spans are parsed"
                yield from without_effect(self.data, name, "alignment", reason, prefix="data.")

    def _flash_in_float32(self) -> Iterator[Contradiction]:
        half = self.training.precision != "fp32"
        in_half: dict[str, tuple[StudentSection | TeacherSection, bool, tuple[str, ...]]]
        in_half = {"student": (self.student, half, ())}
        for name, teacher in self.teacher_sections.items():
            teacher_half = half if teacher.dtype == "auto" else teacher.dtype != "float32"
            in_half[name] = teacher, teacher_half, (f"{name}.dtype",)
        for name, (section, computes_in_half, involved) in in_half.items():
            if section.attention == "flash_attention_2" and not computes_in_half:
                yield Contradiction(
                    f"{name}.attention",
                    (f"{name}.attention", "training.precision", *involved),
                    f"computes in 16 bit only, and the {name} in 32 (got 'flash_attention_2')",
                    "sdpa or eager, or 16 bit",
                    "Choose one of these, or set training.precision to bf16.",
                )

    def _validation_missing(self) -> Iterator[Contradiction]:
        because, reason = "data.validation", "without data.validation"
        yield from without_effect(self.training, "eval_steps", because, reason, prefix="training.")
        if self.training.load_best_model_at_end:
            yield Contradiction(
                "data.validation",
                ("data.validation", "training.load_best_model_at_end"),
                "must be given, since training.load_best_model_at_end compares checkpoints on it (got null)",
                "a data set",
                "Add it, or set training.load_best_model_at_end to false.",
            )

    def _teacher_missing(self) -> Iterator[Contradiction]:
        users = {
            "alignment": self.alignment is not None,
            "student.teacher_layers": self.student.teacher_layers is not None,
            "evaluation.models": self.evaluation is not None and "teacher" in self.evaluation.models,
        }
        for name in (name for name, uses in users.items() if uses):
            yield Contradiction(
                "teacher",
                ("teacher", name),
                f"must be given, since {name} needs it (got null)",
                "a teacher section",
                f"Add a teacher, or change {name}.",
            )
