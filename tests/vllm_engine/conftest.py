"""Tests with vLLM itself, where it is installed; ``tox run -e vllm`` installs its build for CPUs."""

from __future__ import annotations

import importlib.util
import os

import pytest
from transformers import LlamaConfig

if importlib.util.find_spec("vllm") is None:
    collect_ignore_glob = ["test_*.py"]

# Without compilation, which takes longer than all responses of these tests.
os.environ.setdefault("VLLM_CPU_CI_ENV", "1")

HEADS = {"hidden_size": 128, "intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 1}
"""Heads of width 64: vLLM's attention on CPUs has no narrow ones."""


@pytest.fixture(scope="module")
def llama_config() -> LlamaConfig:
    """A tiny Llama whose vocabulary has five more ids than the tokenizer of whole words."""
    sizes = {"vocab_size": 48, "num_hidden_layers": 2, "max_position_embeddings": 64, "initializer_range": 0.3}
    return LlamaConfig(**HEADS, **sizes, bos_token_id=None, eos_token_id=None)
