"""Say how large the teacher caches of the paper's runs are, without the models: a table in Markdown.

    python examples/paper/cache_sizes.py TOKENIZER TRAIN.jsonl DEV.jsonl

The sizes are those that ``mta run SPEC --dry-run`` estimates for the specs of this folder. They follow from shape and
dtype of the teachers, which ``SHAPES`` has, and from tokens and spans of the texts. Teachers, students and their
tokenizers need not be there: TOKENIZER, a folder or a .gguf file, stands for all of them. One row of twenty is parsed.
Span vectors for the report, of 16 texts, are left out.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from mta_framework.registry import discover
from mta_framework.runs.pipeline import plan
from mta_framework.runs.plugin_binding import bind
from mta_framework.teacher_cache.cache_plan import CachePlan
from mta_framework.types import RecordedQuantity

HERE = Path(__file__).resolve().parent
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gpt2": (
        {"model_type": "gpt2", "vocab_size": 50257, "n_layer": 48, "n_embd": 1600, "n_head": 25},
        {"model_type": "gpt2", "vocab_size": 50257, "n_layer": 12, "n_embd": 768, "n_head": 12},
    ),
    "qwen": (
        {"model_type": "qwen2", "vocab_size": 151936, "num_hidden_layers": 24, "hidden_size": 2048}
        | {"num_attention_heads": 16, "num_key_value_heads": 16, "intermediate_size": 5504},
        {"model_type": "qwen2", "vocab_size": 151936, "num_hidden_layers": 24, "hidden_size": 1024}
        | {"num_attention_heads": 16, "num_key_value_heads": 16, "intermediate_size": 2816},
    ),
    "opt": (
        {"model_type": "opt", "vocab_size": 50272, "num_hidden_layers": 32, "hidden_size": 4096}
        | {"num_attention_heads": 32, "ffn_dim": 16384, "word_embed_proj_dim": 4096},
        {"model_type": "opt", "vocab_size": 50272, "num_hidden_layers": 24, "hidden_size": 2048}
        | {"num_attention_heads": 32, "ffn_dim": 8192, "word_embed_proj_dim": 2048},
    ),
}
"""Configurations of teacher and student of each pair, as far as they decide shapes."""

RUNS = ("distillm-mta", "fdd-mta")
"""Runs of each pair; those of DistiLLM-2 train on responses alone, of which nothing is kept."""

EVERY = 20
"""Of so many rows one is tokenised and parsed, and its sizes count as often."""

COLUMNS: dict[RecordedQuantity, str] = {
    "final_states": "final states",
    "attended_states": "states of all tokens",
    "span_token_states": "states of span tokens",
    "geometry": "cosines",
    "token_weights": "weights",
}


def main(tokenizer: Path, train: Path, dev: Path) -> None:
    """Print the table."""
    print(f"| run | {' | '.join(COLUMNS.values())} | head | together | with 8-bit states |")
    print(f"|---|{'---|' * (len(COLUMNS) + 3)}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = {
            field: _sample(path, folder / f"{field}.jsonl") for field, path in (("train", train), ("validation", dev))
        }
        models = {pair: stand_ins(folder / pair, pair, _tokenizer(tokenizer)) for pair in SHAPES}
        for run in RUNS:
            for pair in SHAPES:
                print(row(f"{pair}-{run}", planned_cache(f"{pair}-{run}", models[pair], data, folder)), flush=True)


def stand_ins(folder: Path, pair: str, tokenizer: PreTrainedTokenizerBase) -> tuple[Path, Path]:
    """Write folders of teacher and student that have everything but their weights."""
    paths = folder / "teacher", folder / "student"
    for path, values in zip(paths, SHAPES[pair], strict=True):
        AutoConfig.for_model(**values).save_pretrained(path)
        tokenizer.save_pretrained(path)
        save_file({"none": torch.zeros(1)}, path / "model.safetensors")
    return paths


def planned_cache(run: str, models: tuple[Path, Path], data: dict[str, Path], folder: Path) -> CachePlan:
    """Plan the teacher cache of a spec of this folder.

    Args:
        run: Name of the spec.
        models: Folders of teacher and student.
        data: Files of ``train`` and ``validation``.
        folder: Folder for the cache of spans, which all runs share.
    """
    settings = ["teacher.run=null", f"teacher.path={models[0]}", "student.hub=null", f"student.path={models[1]}"]
    settings += [f"data.{field}.path={path}" for field, path in data.items()]
    settings += ["teacher.cache={}", f"output_dir={folder}", "evaluation=null"]
    planned = plan(bind(HERE / f"{run}.json", discover(()), settings)).teacher_cache
    assert planned is not None
    return planned


def row(run: str, planned: CachePlan) -> str:
    """A row of the table, in GiB."""
    sizes: Counter[str] = Counter()
    eight_bit: float = planned.head_bytes
    for kind, size in ((kind, EVERY * size) for kind, size, _ in planned.sizes if kind.slot.quantity in COLUMNS):
        sizes[kind.slot.quantity] += size
        is_state = kind.slot.quantity.endswith("states") and kind.slot.layer
        eight_bit += size * replace(kind, is_8_bit=True).row_bytes / kind.row_bytes if is_state else size
    cells: list[float] = [*(sizes[quantity] for quantity in COLUMNS), planned.head_bytes]
    cells += [sum(cells), eight_bit]
    shown = [f"{size / 2**30:.2f}" if size else "" for size in cells]
    return f"| `{run}` | {' | '.join(shown)} |"


def _sample(source: Path, target: Path) -> Path:
    """Copy one row of ``EVERY``."""
    target.write_text("".join(source.read_text(encoding="utf-8").splitlines(keepends=True)[::EVERY]), encoding="utf-8")
    return target


def _tokenizer(path: Path) -> PreTrainedTokenizerBase:
    if path.is_dir():
        return AutoTokenizer.from_pretrained(path)
    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
