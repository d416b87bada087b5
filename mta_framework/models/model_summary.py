"""Sizes of the models of a run, worked out from their configurations: no weights are read."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from mta_framework.errors import Fault, FaultList, InputError
from mta_framework.models.attention_choice import attention_fault
from mta_framework.models.configs import config_end_ids, config_faults_at, fresh_config, read_config, read_end_ids
from mta_framework.models.decoder import blocks_of, head_of, shape_of
from mta_framework.models.forward_check import check_decoder, check_forward
from mta_framework.models.layer_selection import select_config_layers
from mta_framework.models.loading import student_field
from mta_framework.models.lora import add_lora
from mta_framework.models.machine_memory import memory_fault
from mta_framework.models.quantization import quantization_fault, weight_bytes
from mta_framework.models.sources import ModelSource, model_source
from mta_framework.models.tokenizers import check_vocabulary
from mta_framework.spec.model_options import QuantizationSection
from mta_framework.spec.student import StudentSection
from mta_framework.spec.teacher import TeacherSection
from mta_framework.timers import time_limit
from mta_framework.types import ModelShape

_BUILD_SECONDS = 120.0
"""Longest time that building a model without weights may take."""


@dataclass(frozen=True)
class ModelSummary:
    """Depth, width, number of parameters and dtype of a model.

    Args:
        shape: Number of decoder blocks and width of the hidden states.
        parameters: Number of parameters, tied ones counted once, adapters included.
        trainable: Number of trainable parameters.
        dtype: Dtype of the weights, e.g. ``float32``; adapters are always float32.
        weight_bytes: Bytes of the weights, tied ones counted once, adapters included.
        config: Configuration of the model.
        end_ids: End tokens in the generation settings of the model.
        where: Field of the spec that names the model.
        has_weights: Whether the weights are there to be loaded, and not only what a teacher cache keeps of the model.
        blocks_problem: Why its decoder blocks cannot be told apart, for key layers; empty where they can.
    """

    shape: ModelShape
    parameters: int
    trainable: int
    dtype: str
    weight_bytes: int
    config: PreTrainedConfig = field(repr=False, compare=False)
    end_ids: tuple[int, ...] = ()
    where: str = ""
    has_weights: bool = True
    blocks_problem: str = field(default="", compare=False)


def summarise_teacher(section: TeacherSection, run_student: ModelSummary | None, dtype: str) -> ModelSummary:
    """Summarise the teacher without reading its weights.

    Args:
        section: Section ``teacher`` of the spec.
        run_student: Summary of the student of ``teacher.run``; None without ``teacher.run``.
        dtype: Dtype of the weights, see ``teacher_dtype``.

    Raises:
        InputError: The configuration could not be read, or its architecture is not supported.
    """
    source = model_source(section, "teacher")
    if source is None:
        assert run_student is not None, "teacher.run goes with run_student"
        config, end_ids, where, has_weights = run_student.config, run_student.end_ids, "teacher.run", True
    else:
        config, where, has_weights = read_config(source), source.where, source.has_weights
        end_ids = read_end_ids(source, config)
    with config_faults_at(where):
        model = without_weights(config)
    size = _weight_bytes(model, dtype, section.quantization, where) if has_weights else 0
    _require_causal(model, where)
    FaultList(_option_faults(model, section, "teacher")).raise_any()
    head_of(model, where)
    check_decoder(model, where)
    sizes = _count(model), 0, dtype, size
    problem = _blocks_problem(model)
    return ModelSummary(shape_of(config), *sizes, config, end_ids, where, has_weights, problem)


def summarise_student(
    section: StudentSection, teacher: ModelSummary | None, tokenizer: PreTrainedTokenizerBase, dtype: str = "float32"
) -> ModelSummary:
    """Summarise the student without reading or initialising its weights.

    Args:
        section: Section ``student`` of the spec.
        teacher: Summary of the teacher; required for ``teacher_layers``, otherwise unused.
        tokenizer: Tokenizer of the student, see ``load_student``.
        dtype: Dtype of the weights, see ``student_dtype``.

    Raises:
        InputError: Any fault of ``load_student`` that can be detected without weights.
    """
    (config, end_ids), where = _student_config(section, teacher, tokenizer), student_field(section)
    with config_faults_at(where):
        model = without_weights(config)
        if section.config is not None:
            check_forward(config)
    size = _weight_bytes(model, dtype, section.quantization, where)
    _require_causal(model, where)
    head_of(model, where)
    check_decoder(model, where)
    vocabulary = check_vocabulary(tokenizer, model, where)
    FaultList([*_option_faults(model, section, "student"), *([vocabulary] if vocabulary else [])]).raise_any()
    student: nn.Module = add_lora(model, section.lora) if section.lora is not None else model
    trainable = _count(student, trainable=True)
    size += 4 * trainable if section.lora is not None else 0
    sizes = _count(student), trainable, dtype, size
    problem = _blocks_problem(model)
    return ModelSummary(shape_of(config), *sizes, config, end_ids, where, blocks_problem=problem)


def summarise_pretrained(source: ModelSource, tokenizer: PreTrainedTokenizerBase, dtype: str) -> ModelSummary:
    """Summarise a pretrained model that is not trained, without reading its weights.

    Args:
        source: The model.
        tokenizer: Tokenizer that the model is used with.
        dtype: Dtype that the weights are loaded in.

    Raises:
        InputError: The configuration could not be read, or has fewer embeddings than the tokenizer has tokens.
    """
    config = read_config(source)
    with config_faults_at(source.where):
        model = without_weights(config)
    size = _weight_bytes(model, dtype, None, source.where)
    _require_causal(model, source.where)
    if fault := check_vocabulary(tokenizer, model, source.where):
        raise InputError([fault])
    end_ids = read_end_ids(source, config)
    return ModelSummary(shape_of(config), _count(model), 0, dtype, size, config, end_ids, source.where)


def _student_config(
    section: StudentSection, teacher: ModelSummary | None, tokenizer: PreTrainedTokenizerBase
) -> tuple[PreTrainedConfig, tuple[int, ...]]:
    """Configuration and end tokens of the student."""
    if section.config is not None:
        config = fresh_config(section.config, tokenizer)
        return config, config_end_ids(config)
    if section.teacher_layers is not None:
        assert teacher is not None, "the spec refuses teacher_layers without a teacher"
        return select_config_layers(teacher.config, section.teacher_layers), teacher.end_ids
    source = model_source(section, "student")
    assert source is not None
    config = read_config(source)
    return config, read_end_ids(source, config)


def without_weights(config: PreTrainedConfig) -> PreTrainedModel:
    """Build a causal language model on the meta device.

    Args:
        config: Configuration of the model; it is not changed.
    """
    with torch.device("meta"), time_limit(_BUILD_SECONDS):
        # Eager attention does not read the values of a mask, of which tensors on the meta device have none.
        return AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation="eager")


def _option_faults(model: PreTrainedModel, section: TeacherSection | StudentSection, where: str) -> list[Fault]:
    faults = (
        attention_fault(model, section.attention, where),
        quantization_fault(model.config, section.quantization, where),
    )
    return [fault for fault in faults if fault]


def _weight_bytes(model: PreTrainedModel, dtype: str, quantization: QuantizationSection | None, where: str) -> int:
    """Bytes of the weights of a model, unless it is too large to be loaded."""
    size = weight_bytes(model, dtype, quantization)
    if fault := memory_fault(size, where):
        raise InputError([fault])
    return size


def _blocks_problem(model: PreTrainedModel) -> str:
    try:
        blocks_of(model)
    except ValueError as error:
        return str(error)
    return ""


def _require_causal(model: PreTrainedModel, where: str) -> None:
    # Encoders with an option is_decoder load as causal language models even where it is off; they would see the future.
    if getattr(model.config, "is_decoder", True):
        return
    problem = f"reads texts in both directions (got {model.config.model_type} with is_decoder false)"
    raise InputError([Fault(where, problem, "a causal language model", "Choose another model.")])


def _count(model: nn.Module, trainable: bool = False) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad or not trainable)
