"""Synthetic texts and a random teacher, for machines without data sets and models."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

SYLLABLES = [first + vowel for first in "bdfghklmnprst" for vowel in "aeiou"]
FORM = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n\n\n### Input:\n\n\n### Response:\n"
)
"""The words of the prompt template, which tokenizers know as well as those of the texts."""

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


def write_model(folder: Path, rows: Path, shape: dict[str, Any], device: str = "cpu", dtype: str = "float32") -> Path:
    """Write a model with random weights, and a byte-level tokenizer trained on the texts.

    Args:
        folder: Folder to write to.
        rows: File of the texts.
        shape: Fields of the configuration; a Llama unless ``model_type`` is among them.
        device: Device that the weights are drawn on, which is faster on a GPU.
        dtype: dtype of the weights.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=4000, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([*[FORM] * 100, *rows.read_text(encoding="utf-8").splitlines()], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
    fast.save_pretrained(folder)
    fields = {"model_type": "llama", **shape, "eos_token_id": fast.eos_token_id, "pad_token_id": fast.pad_token_id}
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields), dtype=getattr(torch, dtype))
    model.save_pretrained(folder)
    return folder
