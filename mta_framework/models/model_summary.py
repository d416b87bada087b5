"""What the models of a run will be, told without reading any weights."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from mta_framework.errors import Fault, InputError
from mta_framework.models.configs import accepted, fresh_config, read_config
from mta_framework.models.decoder import head_of, shape_of
from mta_framework.models.layer_selection import shortened_config
from mta_framework.models.loading import student_field
from mta_framework.models.lora import add_lora
from mta_framework.models.probe import check_runs
from mta_framework.models.sources import ModelSource, model_source
from mta_framework.models.tokenizers import check_vocabulary
from mta_framework.spec.student import StudentSection
from mta_framework.spec.teacher import TeacherSection
from mta_framework.types import ModelShape


@dataclass(frozen=True)
class ModelSummary:
    """A model in numbers.

    Args:
        shape: Depth and width.
        parameters: Number of weights, tied ones counted once, adapters included.
        trainable: How many of them are trained.
        dtype: Of the weights, e.g. ``float32``.
        config: The configuration that it was worked out from.
    """

    shape: ModelShape
    parameters: int
    trainable: int
    dtype: str
    config: PreTrainedConfig = field(repr=False, compare=False)


def summarise_teacher(section: TeacherSection, run_student: ModelSummary | None, dtype: str) -> ModelSummary:
    """Outline of the teacher.

    Args:
        section: ``teacher``.
        run_student: Outline of the student of ``teacher.run``; None where that is not given.
        dtype: See ``teacher_dtype``.

    Raises:
        InputError: The configuration could not be read, or is of no supported architecture.
    """
    origin = model_source(section, "teacher")
    if origin is None:
        assert run_student is not None, "teacher.run goes with run_student"
        config, where = run_student.config, "teacher.run"
    else:
        config, where = read_config(origin), origin.where
    with accepted(where):
        shell = _shell(config)
    _require_causal(shell, where)
    head_of(shell, where)
    return ModelSummary(shape_of(config), _count(shell), 0, dtype, config)


def summarise_student(
    section: StudentSection, teacher: ModelSummary | None, tokenizer: PreTrainedTokenizerBase
) -> ModelSummary:
    """Outline of the student.

    Args:
        section: ``student``.
        teacher: Needed for ``teacher_layers``.
        tokenizer: See ``load_student``.

    Raises:
        InputError: As ``load_student``, as far as it shows without weights.
    """
    config, where = _student_config(section, teacher, tokenizer), student_field(section)
    with accepted(where):
        model = _shell(config)
        if section.config is not None:
            check_runs(config)
    _require_causal(model, where)
    head_of(model, where)
    fault = check_vocabulary(tokenizer, model, where)
    if fault:
        raise InputError([fault])
    shell: nn.Module = add_lora(model, section.lora) if section.lora is not None else model
    return ModelSummary(shape_of(config), _count(shell), _count(shell, trainable=True), "float32", config)


def summarise_pretrained(origin: ModelSource, tokenizer: PreTrainedTokenizerBase, dtype: str) -> ModelSummary:
    """Outline of a pretrained model that is used as it is.

    Args:
        origin: Where it comes from.
        tokenizer: Its own.
        dtype: Of the weights.

    Raises:
        InputError: The configuration could not be read, or has fewer embeddings than the tokenizer has tokens.
    """
    config = read_config(origin)
    with accepted(origin.where):
        shell = _shell(config)
    _require_causal(shell, origin.where)
    if fault := check_vocabulary(tokenizer, shell, origin.where):
        raise InputError([fault])
    return ModelSummary(shape_of(config), _count(shell), 0, dtype, config)


def _student_config(
    section: StudentSection, teacher: ModelSummary | None, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedConfig:
    if section.config is not None:
        return fresh_config(section.config, tokenizer)
    if section.teacher_layers is not None:
        assert teacher is not None, "the spec refuses teacher_layers without a teacher"
        return shortened_config(teacher.config, section.teacher_layers)
    origin = model_source(section, "student")
    assert origin is not None
    return read_config(origin)


def _shell(config: PreTrainedConfig) -> PreTrainedModel:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def _require_causal(shell: PreTrainedModel, where: str) -> None:
    # Encoders that can be told to be decoders load as causal language models, and read what comes after.
    if getattr(shell.config, "is_decoder", True):
        return
    problem = f"reads texts in both directions (got {shell.config.model_type} with is_decoder false)"
    raise InputError([Fault(where, problem, "a causal language model is allowed", "Choose another model.")])


def _count(model: nn.Module, trainable: bool = False) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad or not trainable)
