"""Tokenizers of teacher and student, and whether the two agree."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mta_framework.errors import Fault, InputError
from mta_framework.models.decoder import base_of
from mta_framework.models.sources import ModelSource, loading, local_tokenizer, model_source
from mta_framework.spec.student import StudentSection
from mta_framework.spec.teacher import TeacherSection

_NAMED_DIFFERENCES = 3


def load_tokenizer(origin: ModelSource) -> PreTrainedTokenizerBase:
    """A tokenizer with character offsets, an end token and a padding token (the end token where it has none).

    Callers set ``padding_side``.

    Raises:
        InputError: It could not be loaded, or lacks offsets or an end token.
    """
    with loading(origin, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(**origin.arguments)
    problem = None
    if not tokenizer.is_fast:
        problem = "gives no character offsets, which spans are found by"
    elif tokenizer.eos_token_id is None:
        problem = "has no end-of-sequence token, which every response is closed by"
    if problem:
        expected = "a fast tokenizer with an end-of-sequence token is allowed"
        hint = "Save it as tokenizer.json with eos_token set."
        raise InputError([Fault(origin.where, f"the tokenizer {problem} (got {origin.name!r})", expected, hint)])
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_teacher_tokenizer(section: TeacherSection, run_student_folder: Path | None = None) -> PreTrainedTokenizerBase:
    """The teacher's own tokenizer; ``run_student_folder`` is the student exported by ``teacher.run``."""
    if run_student_folder is not None:
        return load_tokenizer(local_tokenizer(run_student_folder, "teacher.run"))
    origin = model_source(section, "teacher")
    assert origin is not None, "teacher.run goes with run_student_folder"
    return load_tokenizer(origin)


def load_student_tokenizer(
    section: StudentSection, teacher: PreTrainedTokenizerBase | None = None
) -> PreTrainedTokenizerBase:
    """``student.tokenizer``, else the student's own, else the teacher's.

    Raises:
        InputError: There is none of these, or it can't be used.
    """
    if section.tokenizer is not None:
        return load_tokenizer(local_tokenizer(Path(section.tokenizer), "student.tokenizer"))
    origin = model_source(section, "student")
    if origin is not None:
        return load_tokenizer(origin)
    if teacher is None:
        hint = "Give student.tokenizer."
        fault = Fault("student.tokenizer", "is missing (got null)", "null needs a teacher to take it from", hint)
        raise InputError([fault])
    return teacher


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """One more than the largest token id."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def difference(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> str | None:
    """Why no loss can compare the two models token by token: ids that do not mean the same token to both.

    Ids that only one has are allowed: vocabularies that differ by padding or by trailing added tokens are compared on
    their common part (``check_vocabulary`` tells whether a model can embed the other's ids).

    Returns:
        How many ids differ, and the first of them; None where all that both have are the same.
    """
    of_student = {index: token for token, index in student.get_vocab().items()}
    of_teacher = {index: token for token, index in teacher.get_vocab().items()}
    different = [
        index for index in sorted(of_student.keys() & of_teacher.keys()) if of_student[index] != of_teacher[index]
    ]
    if not different:
        return None
    examples = ", ".join(
        f"id {index}: {of_student[index]!r} and {of_teacher[index]!r}" for index in different[:_NAMED_DIFFERENCES]
    )
    return f"in {len(different)} tokens (got {examples})"


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, model: nn.Module, where: str) -> Fault | None:
    """Whether the model has an embedding for every id of the tokenizer.

    Returns:
        A fault at ``where``, or None.
    """
    rows = cast(nn.Embedding, base_of(model).get_input_embeddings()).weight.shape[0]
    needed = vocabulary_size(tokenizer)
    if needed <= rows:
        return None
    return Fault(
        where,
        f"has fewer embeddings than the tokenizer has tokens (got {rows})",
        f"a vocabulary of at least {needed} is allowed",
        "Use the model's own tokenizer, or a larger vocab_size.",
    )
