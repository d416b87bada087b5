"""Loads the tokenizers of teacher and student, and compares them with each other and with their models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import cast

from tokenizers.decoders import ByteLevel
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from mta_framework.errors import Fault, InputError
from mta_framework.models.decoder import base_of
from mta_framework.models.sources import ModelSource, loading_faults_at, local_tokenizer, model_source
from mta_framework.spec.student import StudentSection
from mta_framework.spec.teacher import TeacherSection

_NAMED_DIFFERENCES = 3

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""A token of a SentencePiece vocabulary that stands for one byte."""


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """Load a fast tokenizer with an end-of-sequence token; where it has no padding token, the end token serves as one.

    Callers set ``padding_side``.

    Args:
        source: Model or tokenizer to load from.

    Raises:
        InputError: The tokenizer could not be loaded, is a slow one, or has no end-of-sequence token.
    """
    with loading_faults_at(source, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(**source.arguments)
    problem = None
    if not tokenizer.is_fast:
        problem = "gives no character offsets, which spans need"
    elif tokenizer.eos_token_id is None:
        problem = "has no end-of-sequence token, which ends every response"
    if problem:
        expected = "a fast tokenizer with an end-of-sequence token"
        hint = "Save it as tokenizer.json with eos_token set."
        raise InputError([Fault(source.where, f"the tokenizer {problem} (got {source.name!r})", expected, hint)])
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_teacher_tokenizer(section: TeacherSection, run_student_folder: Path | None = None) -> PreTrainedTokenizerBase:
    """Load the teacher's tokenizer.

    Args:
        section: Section ``teacher`` of the spec.
        run_student_folder: Folder of the student exported by ``teacher.run``; None without ``teacher.run``.

    Raises:
        InputError: The tokenizer cannot be used.
    """
    if run_student_folder is not None:
        return load_tokenizer(local_tokenizer(run_student_folder, "teacher.run"))
    source = model_source(section, "teacher")
    assert source is not None, "teacher.run goes with run_student_folder"
    return load_tokenizer(source)


def load_student_tokenizer(
    section: StudentSection, teacher: PreTrainedTokenizerBase | None = None
) -> PreTrainedTokenizerBase:
    """Load the student's tokenizer: ``student.tokenizer``, else that of the pretrained student, else the teacher's.

    Args:
        section: Section ``student`` of the spec.
        teacher: The teacher's tokenizer; None without a teacher.

    Raises:
        InputError: None of the three exists, or the first that does cannot be used.
    """
    if section.tokenizer is not None:
        return load_tokenizer(local_tokenizer(Path(section.tokenizer), "student.tokenizer"))
    source = model_source(section, "student")
    if source is not None:
        return load_tokenizer(source)
    if teacher is None:
        expected = "a folder with tokenizer files, or a teacher to take it from"
        fault = Fault("student.tokenizer", "is missing (got null)", expected, "Give student.tokenizer.")
        raise InputError([fault])
    return teacher


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the number of embeddings that a tokenizer needs: one more than its largest token id."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def vocabulary_difference(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> str | None:
    """Describe where two vocabularies conflict: ids that stand for different tokens.

    With such ids no loss can compare the two models token by token. Ids that only one tokenizer has are no conflict:
    vocabularies that differ by padding or trailing added tokens are compared on their common part
    (``check_vocabulary`` checks that a model has an embedding for every id).

    Args:
        student: Tokenizer of the student.
        teacher: Tokenizer of the teacher.

    Returns:
        The number of conflicting ids and the first of them, as text; None without any.
    """
    student_tokens = {index: token for token, index in student.get_vocab().items()}
    teacher_tokens = {index: token for token, index in teacher.get_vocab().items()}
    different = [
        index
        for index in sorted(student_tokens.keys() & teacher_tokens.keys())
        if student_tokens[index] != teacher_tokens[index]
    ]
    if not different:
        return None
    examples = ", ".join(
        f"id {index}: {student_tokens[index]!r} and {teacher_tokens[index]!r}"
        for index in different[:_NAMED_DIFFERENCES]
    )
    return f"in {len(different)} tokens (got {examples})"


def shared_tokens(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> list[tuple[int, int]]:
    """Find the tokens that two vocabularies have both, by the bytes that they stand for, leading white space included.

    ``Ġthe`` of a byte-level vocabulary is ``▁the`` of a SentencePiece one, and ``Ċ`` is ``<0x0A>``, unless the latter
    has a token for the line break itself.

    Args:
        student: Tokenizer of the student.
        teacher: Tokenizer of the teacher.

    Returns:
        The student's and the teacher's id of each, ascending by the student's. Of several ids for one text the lowest
        counts.
    """
    student_ids, teacher_ids = (_ids_by_bytes(tokenizer) for tokenizer in (student, teacher))
    return sorted((index, teacher_ids[content]) for content, index in student_ids.items() if content in teacher_ids)


def _ids_by_bytes(tokenizer: PreTrainedTokenizerBase) -> dict[bytes, int]:
    tokens = sorted(tokenizer.get_vocab().items(), key=itemgetter(1), reverse=True)
    if isinstance(tokenizer.backend_tokenizer.decoder, ByteLevel):  # type: ignore[attr-defined]
        byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
        return {_content(token, byte_of): index for token, index in tokens}
    single = {bytes([int(match[1], 16)]): index for token, index in tokens if (match := _BYTE.fullmatch(token))}
    # A byte is written as such only where no token has its text.
    return single | {token.replace("▁", " ").encode(): index for token, index in tokens if not _BYTE.fullmatch(token)}


def _content(token: str, byte_of: Mapping[str, int]) -> bytes:
    """The bytes of a token of a byte-level vocabulary; added tokens may have characters that stand for themselves."""
    return bytes(map(byte_of.__getitem__, token)) if byte_of.keys() >= set(token) else token.encode()


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, model: nn.Module, where: str) -> Fault | None:
    """Check that a model has an embedding for every token id of a tokenizer.

    Args:
        tokenizer: Tokenizer that the model is used with.
        model: The model, on any device (the meta device included).
        where: Field of the spec that names the model.

    Returns:
        The fault, or None where every id has an embedding.
    """
    rows = cast(nn.Embedding, base_of(model).get_input_embeddings()).weight.shape[0]
    needed = vocabulary_size(tokenizer)
    if needed <= rows:
        return None
    return Fault(
        where,
        f"has fewer embeddings than the tokenizer has tokens (got {rows})",
        f"a vocabulary of at least {needed}",
        "Use the model's own tokenizer, or a larger vocab_size.",
    )
