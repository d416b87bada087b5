"""Low-rank adapters on a student."""

from __future__ import annotations

from collections.abc import Sequence

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from mta_framework.errors import Fault, InputError, error_message, nearest
from mta_framework.spec.student import LoraSection

_WHERE = "student.lora.target_modules"


def add_lora(model: PreTrainedModel, section: LoraSection) -> PeftModel:
    """Add low-rank adapters to linear modules (Hu et al. 2022, LoRA) and freeze every other weight, head included.

    Args:
        model: Student, modified in place; embeddings and head get no adapter.
        section: Section ``student.lora``: rank, scale, dropout and the adapted modules (null: every linear module but
            the head).

    Raises:
        InputError: A target is no linear module of the model, or is its head; or peft refuses the architecture.
    """
    if section.target_modules is not None:
        _check_targets(model, section.target_modules)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=section.rank,
        lora_alpha=section.alpha,  # type: ignore[arg-type]  # peft divides it by the rank, whole or not
        lora_dropout=section.dropout,
        target_modules=section.target_modules or "all-linear",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        problem = f"is refused by peft for this model (got: {' '.join(error_message(error).split())})"
        expected = "modules and options that peft can adapt in this architecture"
        hint = "Name other modules in target_modules, or set student.lora to null."
        raise InputError([Fault("student.lora", problem, expected, hint)]) from error
    assert isinstance(adapted, PeftModel)
    return adapted


def _check_targets(model: PreTrainedModel, targets: Sequence[str]) -> None:
    head = model.get_output_embeddings()
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    names = sorted({name.rsplit(".", 1)[-1] for name, module in linear.items() if module is not head})
    faults = []
    for target in targets:
        matched = [module for name, module in linear.items() if f".{name}".endswith(f".{target}")]
        if not matched or head in matched:
            problem = "is the frozen head" if matched else "names no linear module of the student"
            hint = nearest(target, names) or "Choose among these, or give null for all of them."
            faults.append(Fault(_WHERE, f"{problem} (got {target!r})", f"any of {', '.join(names)}", hint))
    if faults:
        raise InputError(faults)
