"""A tiny model with random weights, and a tokenizer of whole words."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = 40


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Ids 0 to 39 are ``w0`` to ``w39``; 40 is the end token, 41 padding, 42 another special token."""
    vocabulary = {f"w{index}": index for index in range(WORDS)} | {"<end>": 40, "<pad>": 41, "<turn>": 42}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<end>", pad_token="<pad>", additional_special_tokens=["<turn>"]
    )


@pytest.fixture
def llama() -> LlamaForCausalLM:
    """Rotary positions; no dropout."""
    torch.manual_seed(4)
    config = LlamaConfig(
        vocab_size=43,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config)
