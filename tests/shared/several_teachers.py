"""Two tiny teachers, and rows that name them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer


def write_teachers(folder: Path, tokenizer_folder: Path) -> dict[str, Path]:
    """Write two Llamas of different widths and depths with one tokenizer; their distributions are far from uniform."""
    folders = {}
    for name, width, depth in (("maths", 32, 4), ("code", 24, 3)):
        folders[name] = folder / name
        sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": depth, "vocab_size": 500}
        torch.manual_seed(depth)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **sizes, num_attention_heads=2))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(folders[name])
        AutoTokenizer.from_pretrained(tokenizer_folder).save_pretrained(folders[name])
    return folders


def write_named_rows(path: Path, source: Path, name_of: Callable[[int], str]) -> None:
    """Write the rows of another file, each with the teacher that ``name_of`` gives for its index."""
    rows = map(json.loads, source.read_text(encoding="utf-8").splitlines())
    named = [{**row, "teacher": name_of(index)} for index, row in enumerate(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in named), encoding="utf-8")
