"""Builds a student from some of its teacher's decoder blocks (``student.teacher_layers``)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from mta_framework.errors import Fault, InputError
from mta_framework.models.attention_choice import attention_option
from mta_framework.models.decoder import blocks_of, shape_of
from mta_framework.spec.model_options import Attention

_WHERE = "student.teacher_layers"


def select_layers(
    teacher: PreTrainedModel, layers: Sequence[int], attention: Attention | None = None
) -> PreTrainedModel:
    """Copy a teacher to float32 with the given decoder blocks only; embeddings, final norm and head are copied too.

    Args:
        teacher: Teacher in any dtype; a bfloat16 teacher gives weights rounded to bfloat16.
        layers: 1-based indices of the blocks to keep, ascending.
        attention: Implementation of the student's attention; None: transformers' choice.

    Raises:
        InputError: A layer is beyond the teacher's depth, or blocks of the architecture cannot be left out.
    """
    config = select_config_layers(teacher.config, layers)
    student = AutoModelForCausalLM.from_config(config, dtype=torch.float32, **attention_option(attention))
    prefix = f"{blocks_of(teacher)[0]}."
    new_index = {str(layer - 1): str(index) for index, layer in enumerate(layers)}
    weights = {}
    for name, tensor in teacher.state_dict().items():
        if not name.startswith(prefix):
            weights[name] = tensor
            continue
        index, rest = name.removeprefix(prefix).split(".", 1)
        if index in new_index:
            weights[f"{prefix}{new_index[index]}.{rest}"] = tensor
    try:
        student.load_state_dict(weights)
    except RuntimeError as error:
        raise _unsupported(config, f"its blocks are not alike: {str(error).splitlines()[-1].strip()}") from error
    student.generation_config = copy.deepcopy(teacher.generation_config)
    return student


def select_config_layers(config: PreTrainedConfig, layers: Sequence[int]) -> PreTrainedConfig:
    """Copy a configuration with the given decoder blocks only; lists with one entry per block are filtered likewise.

    Args:
        config: Configuration of the teacher; not modified.
        layers: 1-based indices of the blocks to keep, ascending.

    Raises:
        InputError: A layer is beyond the depth, or blocks of the architecture cannot be left out.
    """
    depth = shape_of(config).num_layers
    if max(layers) > depth:
        hint = "Leave out the layers beyond."
        beyond = [layer for layer in layers if layer > depth]
        expected = f"layers from 1 to {depth}"
        raise InputError([Fault(_WHERE, f"goes beyond the teacher's depth (got {beyond})", expected, hint)])
    selected = copy.deepcopy(config)
    text = selected.get_text_config(decoder=True)
    text.num_hidden_layers = len(layers)
    for name, value in vars(text).items():
        if _per_layer(name, value, depth):
            setattr(text, name, [value[layer - 1] for layer in layers])
    _check_survives_saving(selected)
    return selected


def _per_layer(name: str, value: Any, depth: int) -> bool:
    plain = not name.startswith("_") and name != "architectures" and not name.endswith("token_id")
    return plain and isinstance(value, list | tuple) and len(value) == depth


def _check_survives_saving(config: PreTrainedConfig) -> None:
    try:
        again = type(config).from_dict(copy.deepcopy(config.to_dict()))
    except Exception as error:  # configuration classes validate themselves, each with exceptions of its own
        raise _unsupported(config, str(error)) from error
    if again.to_dict() != config.to_dict():
        raise _unsupported(config, "its configuration derives the blocks from other fields")


def _unsupported(config: PreTrainedConfig, reason: str) -> InputError:
    expected = "an architecture whose blocks can be left out one by one"
    hint = "Give the student by path or config."
    return InputError([Fault(_WHERE, f"cannot be used with {config.model_type} (got: {reason})", expected, hint)])
