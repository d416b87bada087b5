"""Writes a quantised model of a few kilobytes, in the form of those that llama.cpp makes."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np

WIDTH, LAYERS, HEADS, KEY_HEADS, INNER = 64, 3, 2, 1, 96
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_gguf(path: Path, tokenizer_folder: Path) -> None:
    """Write a Llama of random weights: matrices in four bits, embeddings in eight, norms in 32, as is usual.

    Args:
        path: File to write.
        tokenizer_folder: Has the ``tokenizer.json`` of a byte-level BPE tokenizer. Its tokens come after three special
            ones, as in SmolLM2's: ``<|endoftext|>``, ``<|im_start|>`` and ``<|im_end|>``, which ends a text.
    """
    writer = gguf.GGUFWriter(path, "llama")
    tokens = _add_tokenizer(writer, json.loads((tokenizer_folder / "tokenizer.json").read_text(encoding="utf-8")))
    writer.add_name("Tiny")
    writer.add_block_count(LAYERS)
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(tokens)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_1)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_weights(writer, tokens)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, content: dict) -> int:
    model = content["model"]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    known = sorted(model["vocab"], key=model["vocab"].__getitem__)
    added = {entry["content"] for entry in content["added_tokens"]}
    tokens = [*special, *(token for token in known if token not in added)]
    kinds = [gguf.TokenType.CONTROL] * len(special) + [gguf.TokenType.NORMAL] * (len(tokens) - len(special))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT)
    return len(tokens)


def _add_weights(writer: gguf.GGUFWriter, tokens: int) -> None:
    random = np.random.default_rng(0)
    keys = WIDTH // HEADS * KEY_HEADS
    shapes = {
        "attn_q": (WIDTH, WIDTH),
        "attn_k": (keys, WIDTH),
        "attn_v": (keys, WIDTH),
        "attn_output": (WIDTH, WIDTH),
        "ffn_gate": (INNER, WIDTH),
        "ffn_up": (INNER, WIDTH),
        "ffn_down": (WIDTH, INNER),
    }

    def add(name: str, shape: tuple[int, ...], kind: gguf.GGMLQuantizationType) -> None:
        values = random.normal(0, 0.1, shape).astype(np.float32)
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)

    add("token_embd", (tokens, WIDTH), gguf.GGMLQuantizationType.Q8_0)
    for layer in range(LAYERS):
        for name, shape in shapes.items():
            add(f"blk.{layer}.{name}", shape, gguf.GGMLQuantizationType.Q4_1)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(WIDTH, np.float32))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
