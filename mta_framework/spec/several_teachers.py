"""Several teachers: their names in a spec and in faults, and what contradicts them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from mta_framework.errors import Fault, InputError
from mta_framework.spec.data import DataSection
from mta_framework.spec.document import shown
from mta_framework.spec.evaluation import EvaluationSection
from mta_framework.spec.section import Contradiction, without_effect
from mta_framework.spec.student import StudentSection
from mta_framework.spec.teacher import TeacherSection
from mta_framework.spec.training import TrainingSection


class SpecSections(Protocol):
    """The sections of a run spec that have to do with its teachers."""

    @property
    def teacher(self) -> TeacherSection | None: ...
    @property
    def teachers(self) -> dict[str, TeacherSection] | None: ...
    @property
    def student(self) -> StudentSection: ...
    @property
    def data(self) -> DataSection: ...
    @property
    def training(self) -> TrainingSection: ...
    @property
    def evaluation(self) -> EvaluationSection | None: ...


def teacher_field(name: str) -> str:
    """Return the dotted name of a teacher in a spec, by which models of an evaluation name it, too.

    Args:
        name: Name of one of several teachers; empty: the one teacher.
    """
    return f"teachers.{name}" if name else "teacher"


def teacher_contradictions(spec: SpecSections) -> Iterator[Contradiction]:
    """Yield what contradicts several teachers, and settings that have no effect without them."""
    if spec.teachers is None:
        for name in ("teacher_field", "default_teacher"):
            reason = "without teachers, of which rows name one"
            yield from without_effect(spec.data, name, "teachers", reason, prefix="data.")
    else:
        yield from _of_teachers(spec)
        yield from _beside_teachers(spec)
    yield from _of_evaluation(spec)


def _of_teachers(spec: SpecSections) -> Iterator[Contradiction]:
    names = list(spec.teachers or {})
    if len(names) < 2:
        problem, hint = f"must name several teachers (got {shown(names)})", "Give one teacher as teacher."
        yield Contradiction("teachers", ("teachers",), problem, "two teachers or more", hint)
    if spec.teacher is not None:
        problem, hint = "must not be given beside teacher", "Remove one of the two."
        yield Contradiction("teachers", ("teachers", "teacher"), problem, "either teacher or teachers", hint)
    for name, section in (spec.teachers or {}).items():
        if section.run is not None:
            field, problem = f"teachers.{name}.run", f"trains one teacher, and there are several (got {section.run})"
            hint = "Run it first, and give path: student in its run folder."
            yield Contradiction(field, (field,), problem, "null with several teachers", hint)
    default = spec.data.default_teacher
    if default is not None and default not in names:
        expected, hint = f"one of the teachers: {', '.join(names)}", "Correct the name."
        involved = ("data.default_teacher", "teachers")
        yield Contradiction("data.default_teacher", involved, f"is no teacher (got {default!r})", expected, hint)


def _beside_teachers(spec: SpecSections) -> Iterator[Contradiction]:
    """What is taken from the one teacher, and cannot be where there are several."""
    student, involved = spec.student, tuple[str, ...]()
    if student.teacher_layers is not None:
        problem = f"takes the blocks of one teacher, and there are several (got {shown(student.teacher_layers)})"
        hint = "Run with that teacher alone, then give its student by path."
        involved = ("student.teacher_layers", "teachers")
        yield Contradiction("student.teacher_layers", involved, problem, "null with several teachers", hint)
    if student.config is not None and student.tokenizer is None:
        problem, expected = (
            "must be given for a new student of several teachers (got null)",
            "a folder with tokenizer files",
        )
        involved = ("student.tokenizer", "student.config", "teachers")
        yield Contradiction("student.tokenizer", involved, problem, expected, "Name that of a teacher.")
    if spec.training.sharding is not None:
        problem = "makes all processes pass alike, and each passes once for every teacher of its texts"
        problem += f" (got {spec.training.sharding!r})"
        involved = ("training.sharding", "teachers")
        yield Contradiction("training.sharding", involved, problem, "null with several teachers", "Set it to null.")


def _of_evaluation(spec: SpecSections) -> Iterator[Contradiction]:
    models = [] if spec.evaluation is None else spec.evaluation.models
    names = [teacher_field(name) for name in spec.teachers or {}]
    unknown = [model for model in models if model.startswith("teachers.") and model not in names]
    unknown += [model for model in models if model == "teacher" and names]
    for model in unknown:
        expected = f"one of {', '.join(['student', 'initial_student', *(names or ['teacher'])])}"
        involved = ("evaluation.models", "teachers")
        problem, hint = f"names no teacher of this run (got {model!r})", "Correct the name."
        yield Contradiction("evaluation.models", involved, problem, expected, hint)


@contextmanager
def faults_of_teacher(name: str) -> Iterator[None]:
    """Raise the faults of an ``InputError`` raised inside under the name of a teacher.

    Args:
        name: Name of one of several teachers; empty: the one teacher, whose faults stay as they are.
    """
    try:
        yield
    except InputError as error:
        raise InputError([named_fault(fault, name) for fault in error.faults]) from error


def named_fault(fault: Fault, name: str) -> Fault:
    """Return a fault of a spec as one teacher sees it, with the name of that teacher.

    Args:
        fault: The fault; one that does not mention a teacher, or names this one, stays as it is.
        name: Name of one of several teachers; empty: the one teacher, whose faults stay as they are.
    """
    field, given = teacher_field(name), fault.problem.rpartition(" (got ")
    words = (fault.where, given[0] or fault.problem, fault.expected, fault.hint)
    if not name or not any("teacher" in part for part in words) or field in str(fault):
        return fault
    if fault.where.split(".")[0] == "teacher":
        return replace(fault, where=field + fault.where.removeprefix("teacher"))
    problem = fault.problem.replace("(got 'teacher')", f"(got {field!r})")
    return replace(fault, problem=f"with teacher {name!r}, {problem}")
