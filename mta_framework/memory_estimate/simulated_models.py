"""Student and teacher of a run as modules whose weights have shapes, dtypes and no values."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from mta_framework.memory_estimate.simulated_linear import simulated_linear
from mta_framework.models.attention_choice import attention_option
from mta_framework.models.lora import add_lora
from mta_framework.models.model_summary import ModelSummary
from mta_framework.models.quantization import quantizable_modules
from mta_framework.spec.model_options import QuantizationSection
from mta_framework.spec.student import StudentSection
from mta_framework.spec.teacher import TeacherSection


def simulated_teacher(summary: ModelSummary, section: TeacherSection) -> PreTrainedModel:
    """Make the frozen teacher; call it where torch makes fake tensors.

    Args:
        summary: Summary of the teacher.
        section: Section ``teacher`` of the spec.
    """
    return _simulated(summary, section).eval().requires_grad_(False)


def simulated_student(summary: ModelSummary, section: StudentSection) -> nn.Module:
    """Make the student in training mode, with its adapters; call it where torch makes fake tensors.

    Args:
        summary: Summary of the student.
        section: Section ``student`` of the spec.
    """
    model = _simulated(summary, section)
    if section.lora is None:
        return model.train()
    with _conversion_by_replacement():
        return add_lora(model, section.lora).train()


def _simulated(summary: ModelSummary, section: TeacherSection | StudentSection) -> PreTrainedModel:
    config, dtype = copy.deepcopy(summary.config), getattr(torch, summary.dtype)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype, **attention_option(section.attention))
    if section.quantization is not None:
        _quantize(model, section.quantization, dtype)
    return model  # type: ignore[no-any-return]


@contextmanager
def _conversion_by_replacement() -> Iterator[None]:
    """Give modules that are converted new parameters: torch cannot swap those without values."""
    original = nn.Module._apply

    def _apply(module: nn.Module, convert: Callable[[Any], Any], recurse: bool = True) -> nn.Module:
        for child in module.children() if recurse else ():
            child._apply(convert)
        for name, parameter in module._parameters.items():
            if parameter is not None and (converted := convert(parameter.detach())).dtype != parameter.dtype:
                module._parameters[name] = nn.Parameter(converted, parameter.requires_grad)
        return module

    nn.Module._apply = _apply  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module._apply = original  # type: ignore[method-assign]


def _quantize(model: Any, section: QuantizationSection, dtype: torch.dtype) -> None:
    """Put quantised modules in place of linear ones, as transformers does when it loads a model."""
    for name, module in list(quantizable_modules(model)):
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, simulated_linear(module, section, dtype))
    # By these peft chooses the classes of its adapters.
    model.is_loaded_in_4bit, model.is_loaded_in_8bit = section.bits == 4, section.bits == 8
