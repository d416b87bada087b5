"""Synthetic texts and a random teacher, for machines without data sets and models."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SYLLABLES = [first + vowel for first in "bdfghklmnprst" for vowel in "aeiou"]
SHAPE = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
"""Configuration of SmolLM2-135M."""


def write_rows(path: Path, count: int = 600) -> Path:
    """Write rows of about the lengths of Dolly: most answers short, some long, some rows with an input."""
    draw = random.Random(0)
    words = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 4))) for _ in range(3000)]

    def sentence(mean: float) -> str:
        length = max(1, round(draw.lognormvariate(0, 0.9) * mean))
        return " ".join(draw.choices(words, k=length)).capitalize() + "."

    rows = (
        {"instruction": sentence(10), "input": sentence(30) if draw.random() < 0.25 else "", "output": sentence(40)}
        for _ in range(count)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_teacher(folder: Path, rows: Path) -> Path:
    """Write a model of SmolLM2-135M's shape with random weights, and a byte-level tokenizer trained on the texts."""
    return write_model(folder, rows, SHAPE)


def write_model(folder: Path, rows: Path, shape: dict[str, Any]) -> Path:
    """Write a Llama of this shape with random weights, and a byte-level tokenizer trained on the texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=4000, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    tokenizer.train([str(rows)], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
    fast.save_pretrained(folder)
    config = LlamaConfig(**shape, eos_token_id=fast.eos_token_id, pad_token_id=fast.pad_token_id)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
