"""Runs of ``mta`` from end to end on small models, for ``gpu.py``: faults of the device show here first.

Each run is a process of its own, which records where the host waits during training. The first is also killed after a
checkpoint and resumed, and has an evaluation. Runs of a larger pair show what a cached teacher saves.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import synthetic
from fault_injection import kill
from fault_workload import Ended, Process
from gpu_parts import lines_of, rows_file, teacher_of
from gpu_settings import WIDE, Settings
from host_waits import BACKWARD, CHECKPOINT, GENERATION, STEP, VALIDATION, Wait, recording
from isolated_parts import FAULT, Measured, Row
from safetensors.numpy import load_file

from mta_framework.training.trainer import DistillationTrainer

STEPS = 4
_KILLED_AT = 3
_LLAMA = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "tie_word_embeddings": True}
_LLAMA |= {"num_attention_heads": 4, "num_key_value_heads": 2}
_STUDENT = {**_LLAMA, "num_hidden_layers": 4}
_TEACHER = {**_LLAMA, "num_hidden_layers": 6, "vocab_size": 4100}
_MTA = {"spans": {"name": "words"}, "layers": {"name": "proportional", "params": {"words": 3, "phrases": 0}}}
_BF16 = {"precision": "bf16"}
_WRITING = {"generation": {"max_new_tokens": 16}, **_BF16}
_EVALUATION = {
    "sets": {"seen": {"path": "rows.jsonl", "limit": 8}},
    "models": ["student", "teacher", "initial_student"],
    "seeds": [1],
    "max_new_tokens": 8,
    "metrics": [{"name": "exact_match"}, {"name": "distinct_n"}, {"name": "perplexity"}],
}

RUNS: dict[str, dict[str, Any]] = {
    "KL + MTA": {"base_loss": "kl", "alignment": _MTA, "training": _BF16, "evaluation": _EVALUATION},
    "DistiLLM": {"base_loss": "distillm", "alignment": _MTA, "training": _WRITING},
    "DistiLLM-2": {"base_loss": "distillm2", "alignment": _MTA, "training": _WRITING},
    "KL, fp32": {"base_loss": "kl", "training": {}},
    "KL + MTA, fp16": {"base_loss": "kl", "alignment": _MTA, "training": {"precision": "fp16"}},
    "KL + MTA, LoRA": {"base_loss": "kl", "alignment": _MTA, "training": _BF16, "lora": {"rank": 4}},
    "KL + MTA, measured layers": {
        "base_loss": "kl",
        "alignment": {"spans": {"name": "words"}, "layers": {"name": "cka", "params": {"words": 2, "phrases": 0}}},
        "training": _BF16,
    },
    "EOPD": {"base_loss": "eopd", "training": _WRITING},
    "policy gradient": {"base_loss": "policy_gradient", "training": _WRITING},
    "FDD + MTA, gradient checkpointing": {
        "base_loss": "fdd",
        "alignment": _MTA,
        "training": {**_BF16, "gradient_checkpointing": True},
    },
    "SFT": {"base_loss": "sft", "training": _BF16},
    "KL + MTA, cached teacher": {"base_loss": "kl", "alignment": _MTA, "training": _BF16, "cache": {}},
}
"""Name of a run -> what distinguishes its spec."""


def runs(settings: Settings, folder: Path) -> Measured:
    """Every run with its waits, and the first once more, killed and resumed."""
    if settings.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    rows = rows_file(folder)
    if not (folder / "run-teacher").exists():
        # On the CPU: this process must not open the device, or those that it forks could not.
        synthetic.write_model(folder / "run-teacher", rows, _TEACHER)
    recorded: dict[str, list[Wait]] = {}
    for name in settings.runs or RUNS:
        spec = _write_spec(folder, name, RUNS[name])
        yield "Runs", _row(name, spec, settings.device, recorded)
        if name == next(iter(RUNS)):
            yield "Runs", _resumed(name, spec)
    for row in lines_of(recorded):
        yield f"Lines at which the host waits in {STEPS} steps of a run", row


def cached_teacher(settings: Settings, folder: Path) -> Measured:
    """Runs of a pair with its teacher live and cached: what each part of a step takes, and the filling of the cache."""
    pair, steps = settings.pairs[WIDE], 3 * settings.steps
    # On the CPU, if no other part has made it: this process must not open the device.
    teacher = teacher_of(pair, folder, "cpu")
    training = {
        **_BF16,
        "max_steps": steps,
        "batch_size": pair.batch_size,
        "micro_batch_size": None,
        "save_steps": None,
    }
    run = {"base_loss": "kl", "alignment": _MTA, "training": training, "limit": steps * pair.batch_size}
    run |= {"teacher": teacher.name, "config": pair.student["config"]}
    for name, options in {"live": {}, "cached": {"cache": {}}}.items():
        spec = _write_spec(folder, f"{name} teacher", {**run, **options})
        yield f"Runs with a live and a cached teacher, {WIDE}", _row(f"{name} teacher", spec, settings.device, {})


def _write_spec(folder: Path, name: str, run: Mapping[str, Any]) -> Path:
    training = {"max_steps": STEPS, "batch_size": 8, "micro_batch_size": 4, "save_steps": 2, "log_steps": 2}
    document = {
        "name": "".join(letter if letter.isalnum() else "-" for letter in name.lower()),
        "output_dir": "runs",
        "teacher": {"path": run.get("teacher", "run-teacher"), "cache": run.get("cache")},
        "student": {"config": run.get("config", _STUDENT), "lora": run.get("lora")},
        "data": {
            "train": {"path": "rows.jsonl", "limit": run.get("limit", 64)},
            "validation": {"path": "rows.jsonl", "limit": 4},
            "max_length": 192,
            "max_prompt_length": 128,
        },
        "base_loss": {"name": run["base_loss"]},
        "alignment": run.get("alignment"),
        "training": {**training, "trackers": [], **run["training"]},
        "evaluation": run.get("evaluation"),
    }
    if run["base_loss"] == "sft":
        document["teacher"], document["student"]["tokenizer"] = None, "run-teacher"
    path = folder / f"{document['name']}.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def _mta(spec: Path, prepare: Callable[[], None], *options: str) -> Ended:
    return Process(["run", str(spec), *options], prepare).wait()


def _record_waits(file: Path, device: str) -> None:
    """Record the waits of training in this process, and write them to a file."""
    train = DistillationTrainer.train

    def recorded(trainer: DistillationTrainer, *arguments: Any, **options: Any) -> Any:
        with recording(device) as waits:
            start = time.perf_counter()
            result = train(trainer, *arguments, **options)
            seconds = time.perf_counter() - start
        file.write_text(json.dumps({"seconds": seconds, "waits": [vars(wait) for wait in waits]}), encoding="utf-8")
        return result

    DistillationTrainer.train = recorded  # type: ignore[method-assign]


def _kill_at_step(step: int) -> None:
    """Let this process end as a lost machine does, before one of its optimiser steps."""
    check = DistillationTrainer.before_optimizer_step

    def checked(trainer: DistillationTrainer) -> None:
        if trainer.state.global_step == step:
            kill()
        check(trainer)

    DistillationTrainer.before_optimizer_step = checked  # type: ignore[method-assign]


def _row(name: str, spec: Path, device: str, recorded: dict[str, list[Wait]]) -> Row:
    """Run a spec, and make a row of what is measured."""
    file = spec.with_suffix(".waits")
    ended = _mta(spec, partial(_record_waits, file, device))
    if ended.code:
        return {"variant": name, FAULT: f"exit code {ended.code}: {_last_lines(ended.text)}"}
    measured = json.loads(file.read_text(encoding="utf-8"))
    waits = recorded[name] = [Wait(**wait) for wait in measured["waits"]]
    phases = {phase: sum(wait.phase == phase for wait in waits) for phase in (GENERATION, VALIDATION, CHECKPOINT)}
    log = json.loads((_output(spec) / "training.json").read_text(encoding="utf-8"))
    return {
        "variant": name,
        "s": round(ended.seconds, 1),
        "training, s": round(measured["seconds"], 2),
        "waits per step": round(sum(wait.phase in (STEP, BACKWARD) for wait in waits) / log["total_steps"], 1),
        **{f"waits in {phase}": count for phase, count in phases.items()},
        "ms per step": ", ".join(f"{part} {1000 * seconds:.1f}" for part, seconds in log["step_time"].items()),
    }


def _resumed(name: str, spec: Path) -> Row:
    """A run that is killed after a checkpoint and resumed, compared with the one that was not."""
    label = f"{name}, killed and resumed"
    options = ("--set", "output_dir=killed")
    killed = _mta(spec, partial(_kill_at_step, _KILLED_AT), *options)
    start = time.monotonic()
    ended = _mta(spec, lambda: None, *options, "--resume")
    if ended.code:
        return {"variant": label, FAULT: f"exit code {ended.code}: {_last_lines(ended.text)}"}
    weights = [load_file(_output(spec, output) / "student" / "model.safetensors") for output in ("runs", "killed")]
    difference = max(abs(weights[0][key] - weights[1][key]).max() for key in weights[0])
    return {
        "variant": label,
        "s": round(time.monotonic() - start, 1),
        "first exit code": killed.code,
        "largest difference of a weight": float(difference),
    }


def _output(spec: Path, output: str = "runs") -> Path:
    return spec.parent / output / json.loads(spec.read_text(encoding="utf-8"))["name"]


def _last_lines(text: str) -> str:
    return " / ".join(line.strip() for line in text.strip().splitlines()[-12:])[-1500:]
