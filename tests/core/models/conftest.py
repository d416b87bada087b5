"""Tiny models with random weights, large enough that a mistake shows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny_models import byte_tokenizer, tiny_model
from transformers import PreTrainedModel, PreTrainedTokenizerFast


@pytest.fixture
def tiny() -> Callable[..., PreTrainedModel]:
    """``tiny(family, seed, **changes)``: a float32 model in evaluation mode, weights of standard deviation 0.3."""
    return tiny_model


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte (ids 0 to 255) and an end token (id 256) that also pads."""
    return byte_tokenizer()


@pytest.fixture(scope="session")
def padded() -> tuple[torch.Tensor, torch.Tensor]:
    """Two rows of token ids and their mask; the second row has three padding tokens at its end."""
    input_ids_BT = torch.randint(0, 250, (2, 7), generator=torch.Generator().manual_seed(3))
    attention_mask_BT = torch.ones_like(input_ids_BT)
    attention_mask_BT[1, 4:] = 0
    input_ids_BT[1, 4:] = 256
    return input_ids_BT, attention_mask_BT
