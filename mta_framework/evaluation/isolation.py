"""Keeps generation from leaving traces: random state, training mode and generation settings are put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from transformers import GenerationConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from ``seed`` on the CPU and on ``device``; afterwards both go on as if nothing had been drawn."""
    if device.type == "cpu":
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(seed)
            yield
        return
    module = torch.get_device_module(device)
    with torch.accelerator.device_index(device.index), torch.random.fork_rng([device], device_type=device.type):
        torch.default_generator.manual_seed(seed)
        module.manual_seed(seed)
        yield


@contextmanager
def in_evaluation_mode(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout off; afterwards every module is in the mode in which it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def without_stored_settings(model: PreTrainedModel) -> Iterator[None]:
    """Hide the model's stored generation settings.

    ``generate`` fills whatever a given configuration leaves open from the stored one (top_k, repetition_penalty,
    suppressed tokens, ...), so scores would depend on a file next to the weights.
    """
    stored = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = stored
