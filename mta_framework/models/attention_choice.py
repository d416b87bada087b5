"""The implementation of attention that a spec asks for, and whether an architecture has it."""

from __future__ import annotations

from transformers import PreTrainedModel

from mta_framework.errors import Fault
from mta_framework.spec.model_options import Attention

_SUPPORT = {"sdpa": "_supports_sdpa", "flash_attention_2": "_supports_flash_attn"}
"""Implementation -> the attribute of transformers' classes that says whether the architecture has it."""


def attention_option(attention: Attention | None) -> dict[str, str]:
    """Return the argument of ``from_pretrained`` and ``from_config``.

    Args:
        attention: Implementation of attention; None: transformers' choice.
    """
    return {} if attention is None else {"attn_implementation": attention}


def attention_fault(model: PreTrainedModel, attention: Attention | None, where: str) -> Fault | None:
    """Return the fault of an implementation that the architecture does not have; None where it does.

    Args:
        model: Model of the architecture, with or without weights.
        attention: Implementation of attention; None: transformers' choice.
        where: Name of the section, ``teacher`` or ``student``.
    """
    choices = ["eager", *(name for name, attribute in _SUPPORT.items() if getattr(model, attribute))]
    if attention is None or attention in choices:
        return None
    problem = f"is no implementation that {type(model).__name__} has (got {attention!r})"
    return Fault(f"{where}.attention", problem, " or ".join(choices), "Choose one of these, or leave it out.")
