"""Tiny models with random weights, and a tokenizer of whole words."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

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


def _llama() -> LlamaForCausalLM:
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


def _gpt2() -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=43,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config)


@pytest.fixture(params=[_llama, _gpt2], ids=["llama", "gpt2"])
def model(request: pytest.FixtureRequest) -> LlamaForCausalLM | GPT2LMHeadModel:
    """Rotary and learned positions; GPT-2 with dropout. In training mode, as after training."""
    torch.manual_seed(3)
    return request.param().train()


@pytest.fixture
def llama() -> LlamaForCausalLM:
    """One model, where its kind does not matter."""
    torch.manual_seed(4)
    return _llama()
