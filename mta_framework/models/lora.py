"""Low-rank adapters on a student."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from mta_framework.errors import Fault, FaultList, InputError, error_message, nearest
from mta_framework.models.quantization import is_quantized
from mta_framework.spec.student import LoraSection

_WHERE = "student.lora.target_modules"
_LINEAR = (nn.Linear, Conv1D)


def add_lora(model: PreTrainedModel, section: LoraSection) -> PeftModel:
    """Add low-rank adapters to linear modules (Hu et al. 2022, LoRA) and freeze every other weight, head included.

    Args:
        model: Student, modified in place; embeddings and head get no adapter.
        section: Section ``student.lora``: rank, scale, dropout and the adapted modules (null: every linear module but
            the head).

    Raises:
        InputError: A target is no linear module of the model, or is its head; there is no default for this
            architecture; or peft refuses it.
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, _LINEAR)}
    head = model.get_output_embeddings()
    adaptable = {_last(name) for name, module in linear.items() if module is not head}
    # An adapter stands in for a linear map; routers of experts, for one, compute something else.
    odd = {_last(name): module for name, module in linear.items() if not _is_plain(module)}
    adaptable -= odd.keys()
    if section.target_modules is None:
        FaultList(_default_faults(odd, adaptable)).raise_any()
    else:
        plain = {name: module for name, module in linear.items() if _last(name) not in odd}
        FaultList(_target_faults(section.target_modules, plain, head, adaptable)).raise_any()
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
    except Exception as error:  # peft raises errors of many kinds, and has lists of architectures
        reason = error_message(error)
        problem = f"is refused by peft for this model (got: {reason})"
        expected = "modules and options that peft can adapt in this architecture"
        left = {name for name in adaptable if f"'{name}'" not in reason}
        raise InputError([Fault("student.lora", problem, expected, _proposal(left))]) from error
    assert isinstance(adapted, PeftModel)
    return adapted


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _is_plain(module: nn.Linear | Conv1D) -> bool:
    """Whether it computes its linear map and nothing else; where its class has a method of its own, by trying it.

    On the meta device, where there are no values, the form of the result decides.
    """
    if type(module).forward in [kind.forward for kind in _LINEAR] or is_quantized(module):
        return True
    if not isinstance(module, nn.Linear):
        return False
    with torch.no_grad():
        row = module.weight.new_ones(1, module.in_features)
        tried, mapped = module(row), functional.linear(row, module.weight, module.bias)
    alike = isinstance(tried, Tensor) and tried.shape == mapped.shape
    return alike and (tried.is_meta or torch.allclose(tried, mapped, rtol=0.05))


def _default_faults(odd: Mapping[str, nn.Module], adaptable: Iterable[str]) -> Iterator[Fault]:
    if odd:
        got = ", ".join(f"{name}: {type(module).__name__}" for name, module in sorted(odd.items()))
        problem = f"has no default for this model, since not all of its linear modules can be adapted (got {got})"
        yield Fault(_WHERE, problem, f"names among {', '.join(sorted(adaptable))}", _proposal(adaptable))


def _proposal(names: Iterable[str]) -> str:
    if not (listed := sorted(names)):
        return "Set student.lora to null."
    return f"Set {_WHERE}, e.g. to {json.dumps(listed)}, or student.lora to null."


def _target_faults(
    targets: Sequence[str], linear: Mapping[str, nn.Module], head: nn.Module | None, adaptable: Iterable[str]
) -> Iterator[Fault]:
    names = sorted(adaptable)
    for target in targets:
        matched = [module for name, module in linear.items() if f".{name}".endswith(f".{target}")]
        if not matched or head in matched:
            problem = "is the frozen head" if matched else "names no linear module of the student"
            hint = nearest(target, names) or "Choose among these, or give null for all of them."
            yield Fault(_WHERE, f"{problem} (got {target!r})", f"any of {', '.join(names)}", hint)
