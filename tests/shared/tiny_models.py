"""Tiny models with random weights, large enough that a mistake shows, and a tokenizer that fits them."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

_SIZES = {
    "vocab_size": 300,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": 256,
    "pad_token_id": 256,
}
_GPT2 = {name: _SIZES[name] for name in _SIZES if name not in ("num_key_value_heads", "intermediate_size")}
_OPT = {name: _SIZES[name] for name in _GPT2} | {"ffn_dim": 32, "dropout": 0.0}

FAMILIES = {
    "llama": ("llama", _SIZES),
    "llama_tied": ("llama", _SIZES | {"tie_word_embeddings": True}),
    "gpt2": ("gpt2", _GPT2 | {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}),
    "opt": ("opt", _OPT),
    "opt_projected": ("opt", _OPT | {"word_embed_proj_dim": 8}),
    "opt_350m": ("opt", _OPT | {"word_embed_proj_dim": 8, "do_layer_norm_before": False}),
    "qwen2": ("qwen2", _SIZES),
    "qwen3": ("qwen3", _SIZES | {"head_dim": 8}),
    "mistral": ("mistral", _SIZES | {"sliding_window": 3}),
    "gemma2": ("gemma2", _SIZES | {"head_dim": 8, "final_logit_softcapping": 2.0, "sliding_window": 3}),
    "gemma3": ("gemma3_text", _SIZES | {"head_dim": 8, "final_logit_softcapping": 3.0, "sliding_window": 3}),
    "cohere": ("cohere", _SIZES),
    "granite": ("granite", _SIZES | {"logits_scaling": 8.0}),
    "phi": ("phi", _SIZES),
    "gpt_neox": ("gpt_neox", {name: _SIZES[name] for name in _SIZES if name != "num_key_value_heads"}),
    "bloom": ("bloom", {name: _GPT2[name] for name in _GPT2 if name != "max_position_embeddings"}),
    "falcon": ("falcon", _GPT2),
    "olmo2": ("olmo2", _SIZES),
    "llama4": ("llama4_text", _SIZES | {"intermediate_size_mlp": 32, "num_local_experts": 2, "num_experts_per_tok": 1,
                                        "head_dim": 8, "attention_chunk_size": 8}),
    "neox": ("gpt_neox", {name: _SIZES[name] for name in _SIZES if name != "num_key_value_heads"}),
    "mixtral": ("mixtral", _SIZES | {"num_local_experts": 2, "num_experts_per_tok": 2}),
}  # fmt: skip


def tiny_model(family: str, seed: int = 7, **changes: object) -> PreTrainedModel:
    """Build a float32 model in evaluation mode, with weights of standard deviation 0.3."""
    model_type, fields = FAMILIES[family]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **(fields | changes)))
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte (ids 0 to 255) and an end token (id 256) that also pads."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(alphabet)} | {"<end>": 256}
    backend = Tokenizer(models.BPE(vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", pad_token="<end>")
