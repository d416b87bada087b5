"""The peak memory of training that a dry run estimates, and the one that the allocator counts: a table.

    python benchmarks/peak_memory.py [--settings full fdd] [--architecture gpt2] [--tiny]

Teacher and student are of SmolLM2-135M's shape (or GPT-2's), the student with fewer blocks; weights are random, and
texts synthetic. Each setting trains for some steps in a new process. Without a GPU torch's profiler counts.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import synthetic
import torch
from memory import peak_bytes
from torch import distributed

from mta_framework.distributed import processes, shutdown
from mta_framework.registry import discover
from mta_framework.runs import pipeline
from mta_framework.runs.plugin_binding import bind
from mta_framework.training.train import train

_MIB = 2**20
_LORA = {"rank": 8}
_QUANTIZED = {"student.lora": _LORA, "student.quantization": {"bits": 4}, "training.precision": "bf16"}
_GPT2: dict[str, Any] = {
    "model_type": "gpt2",
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "vocab_size": 50257,
    "n_positions": 256,
}
SHAPES: dict[str, dict[str, Any]] = {"llama": synthetic.SHAPE, "gpt2": _GPT2}
_TINY_LLAMA = {"hidden_size": 64, "intermediate_size": 192, "num_attention_heads": 4, "num_key_value_heads": 2}
TINY: dict[str, dict[str, Any]] = {
    "llama": {**synthetic.SHAPE, **_TINY_LLAMA, "vocab_size": 4100},
    "gpt2": {**_GPT2, "vocab_size": 4100, "n_embd": 64, "n_head": 4},
}
_DEPTH = {"llama": "num_hidden_layers", "gpt2": "n_layer"}
SETTINGS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "full": ("all weights, fp32", {}),
    "lora": ("LoRA, fp32", {"student.lora": _LORA}),
    "qlora": ("LoRA on 4 bit, bf16", _QUANTIZED),
    "bf16": ("all weights, bf16", {"training.precision": "bf16"}),
    "checkpointing": ("gradient checkpointing", {"training.gradient_checkpointing": True}),
    "cached": ("cached teacher", {"teacher.cache": {}}),
    "fdd": ("fdd", {"base_loss": {"name": "fdd", "params": {"output": {"name": "kl"}}}}),
    "ddp": ("two processes, DDP", {}),
    "fsdp2": ("two processes, FSDP2", {"training.sharding": "fsdp2"}),
    "accumulation": ("4 micro-batches of 2", {"training.micro_batch_size": 2}),
    "adafactor": ("Adafactor", {"training.optimizer": "adafactor"}),
    "adamw_8bit": ("8-bit AdamW", {"training.optimizer": "adamw_8bit"}),
    "8bit": ("LoRA on 8 bit, bf16", {**_QUANTIZED, "student.quantization": {"bits": 8}}),
}
"""Setting -> its row's name, and what it sets in the spec."""


def write_run(folder: Path, architecture: str, tiny: bool) -> Path:
    """Write rows, models and spec of the run that all settings change."""
    shape = (TINY if tiny else SHAPES)[architecture]
    rows = synthetic.write_rows(folder / "rows.jsonl")
    depths = {"teacher": 8, "student": 4} if tiny else {"teacher": shape[_DEPTH[architecture]], "student": 6}
    for name, depth in depths.items():
        synthetic.write_model(folder / name, rows, {**shape, _DEPTH[architecture]: depth})
    # Both steps train on the same 8 texts, as a prompt is too long; the optimiser has its state in the second one.
    spec = {
        "name": "run",
        "teacher": {"path": "teacher"},
        "student": {"path": "student"},
        "data": {"train": {"path": "rows.jsonl", "limit": 9}, "max_length": 256, "max_prompt_length": 250},
        "base_loss": {"name": "kl"},
        "alignment": {
            "spans": {"name": "words"},
            "layers": {"name": "proportional", "params": {"words": 3, "phrases": 0}},
        },
        "training": {"max_steps": 2, "batch_size": 8, "trackers": []},
    }
    path = folder / "run.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    return path


def run_setting(path: Path, setting: str) -> dict[str, Any]:
    """Estimate the peak of a setting, then train and measure it; in a process of its own, or in two."""
    changes = {**SETTINGS[setting][1], "name": setting}
    overrides = [f"{name}={json.dumps(value) if name != 'name' else value}" for name, value in changes.items()]
    bound = bind(path, discover(), overrides)
    plan = pipeline.plan(bound)
    measured: list[int] = []
    with mock.patch.object(pipeline, "train", partial(_measured, train, measured)):
        pipeline.run(bound)
    device = processes().device.type
    if distributed.is_initialized():  # the largest micro-batch is one process's
        peak = torch.tensor(measured[0])
        distributed.all_reduce(peak, distributed.ReduceOp.MAX)
        measured = [int(peak)]
    return {
        "estimate": plan.memory.total,
        "parts": dict(plan.memory.bytes_by_part),
        "phase": plan.memory.phase,
        "problem": plan.memory.problem,
        "measured": measured[0],
        "device": device,
    }


def _measured(original: Any, peaks: list[int], *args: Any) -> Any:
    """Train, and note the peak of all tensors that are alive, whenever they were made."""
    device = processes().device.type
    before, logs = _live_bytes(device), []
    peaks.append(before + peak_bytes(lambda: logs.append(original(*args)), device))
    return logs[0]


def _live_bytes(device: str) -> int:
    gc.collect()
    if device != "cpu":
        return torch.cuda.memory_allocated()
    tensors = [entry for entry in gc.get_objects() if isinstance(entry, torch.Tensor)]
    local = [getattr(tensor, "_local_tensor", tensor) for tensor in tensors]
    storages = {storage._cdata: storage.nbytes() for storage in (tensor.untyped_storage() for tensor in local)}
    return sum(storages.values())


def rows(path: Path, settings: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run each setting in new processes."""
    for setting in settings:
        count = 2 if setting in ("ddp", "fsdp2") else 1
        worker = [__file__, "--worker", str(path), "--settings", setting]
        launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={count}", "--master-port=29571"]
        command = [sys.executable, *(launcher if count > 1 else []), *worker]
        subprocess.run(command, check=True, stdout=sys.stderr, env={**os.environ, "OMP_NUM_THREADS": "1"})
        yield setting, json.loads((path.parent / f"{setting}.json").read_text(encoding="utf-8"))


def markdown(table: Sequence[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    """The table, as Markdown."""
    parts = list(dict.fromkeys(part for _, row in table for part in row["parts"]))
    yield f"| setting | estimate, MiB | measured, MiB | ratio | peak in | {' | '.join(parts)} |"
    yield f"|---|---|---|---|---|{'---|' * len(parts)}"
    for setting, row in table:
        sizes = " | ".join(f"{row['parts'].get(part, 0) / _MIB:,.0f}" for part in parts)
        ratio = row["estimate"] / row["measured"]
        shown = f"{row['estimate'] / _MIB:,.0f} | {row['measured'] / _MIB:,.0f} | {ratio:.3f} | {row['phase']}"
        yield f"| {SETTINGS[setting][0]} | {shown} | {sizes} |"


def main() -> None:
    """Run all settings and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS, help="default: all")
    parser.add_argument("--architecture", choices=SHAPES, default="llama", help="shape of both models")
    parser.add_argument("--tiny", action="store_true", help="small models")
    parser.add_argument("--write", type=Path, help="write models, rows and spec to this folder, and do nothing else")
    parser.add_argument(
        "--worker", type=Path, help="run one setting of a spec that was written, and write its row beside it"
    )
    command = parser.parse_args()
    torch.set_num_threads(1)
    if command.write is not None:
        write_run(command.write, command.architecture, command.tiny)
        return
    if command.worker is not None:
        (setting,) = command.settings
        row = run_setting(command.worker, setting)
        if processes().is_main_process:
            (command.worker.parent / f"{setting}.json").write_text(json.dumps(row), encoding="utf-8")
        shutdown()
        return
    with tempfile.TemporaryDirectory() as folder:
        path = write_run(Path(folder), command.architecture, command.tiny)
        table = []
        for setting, row in rows(path, command.settings):
            table.append((setting, row))
            print(setting, row, file=sys.stderr, flush=True)
    print(*markdown(table), sep="\n")


if __name__ == "__main__":
    main()
