"""Runs generation without side effects: modes, settings and the autocast cache are restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from transformers import GenerationConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def isolated(model: PreTrainedModel) -> Iterator[None]:
    """Run the block without gradient, dropout and the model's stored generation settings, and restore them afterwards.

    Args:
        model: The model that generates in the block.
    """
    with _in_evaluation_mode(model), _without_stored_settings(model), _apart_from_autocast(), torch.inference_mode():
        yield


@contextmanager
def _in_evaluation_mode(model: PreTrainedModel) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _without_stored_settings(model: PreTrainedModel) -> Iterator[None]:
    # ``generate`` completes a given configuration from the stored one (top_k, repetition_penalty, suppressed tokens,
    # ...), so responses would depend on a file next to the weights.
    stored = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = stored


@contextmanager
def _apart_from_autocast() -> Iterator[None]:
    # Autocast keeps the weights that it has cast. Before torch 2.11 it did so in inference mode too, and a training
    # step within the same autocast context went on with weights without gradient.
    try:
        yield
    finally:
        torch.clear_autocast_cache()
