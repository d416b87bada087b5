"""What the campaign of faults runs: small runs of four kinds, in forked processes, and what is compared of them."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from isolated_parts import remake_thread_pool
from synthetic import write_model, write_rows

from mta_framework.cli import main

TINY = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "attention_dropout": 0.1,
}
"""Configuration of the students; dropout makes them depend on the random generators."""

TIMES = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "training_seconds"}
"""What two runs never have in common in their logs."""

WRITING = {"max_new_tokens": 6, "batch_tokens": 4800}
WORDS = {"spans": {"name": "words"}, "layers": {"name": "cka", "params": {"texts": 8, "words": 2, "phrases": 0}}}
FIVE_EPOCHS = {"max_steps": None, "epochs": 5, "batch_size": 10}
PAIRS = {"batches": {"every_steps": 3}, "anchor_steps": 2}
ADAPTIVE = {"batches": {"policy": "adaptive", "initial_threshold": 0.8, "capacity": 8}}
KINDS: dict[str, dict[str, Any]] = {
    "kl": {"base_loss": {"name": "kl"}, "alignment": WORDS},
    "cached": {"base_loss": {"name": "kl"}, "alignment": WORDS, "cache": {}, "training": FIVE_EPOCHS},
    "distillm": {"base_loss": {"name": "distillm", "params": ADAPTIVE}, "generation": WRITING},
    "distillm2": {"base_loss": {"name": "distillm2", "params": PAIRS}, "generation": WRITING},
}
"""Kind of run -> base loss and alignment, how it generates responses, and its teacher cache."""


@dataclass
class Ended:
    """A process that has ended: exit code (negative after a signal), what it printed, and its duration in seconds."""

    code: int
    text: str
    seconds: float


class Process:
    """``mta`` in a fork of this process, in which everything slow is imported already."""

    def __init__(self, arguments: list[str], prepare: Callable[[], None] | None = None):
        reader, writer = os.pipe()
        self._began = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            _become(arguments, writer, prepare)
        os.close(writer)
        self._content = bytearray()
        self._thread = threading.Thread(target=self._read, args=(reader,), daemon=True)
        self._thread.start()

    def _read(self, reader: int) -> None:
        with os.fdopen(reader, "rb") as file:
            while block := file.read1(65536):
                self._content += block

    def kill(self, after: float) -> None:
        """Kill the process after so many seconds, unless it has ended by then."""
        end = self._began + after
        while time.monotonic() < end and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.005)
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> Ended:
        """Wait for the end."""
        _, status = os.waitpid(self.pid, 0)
        seconds = time.monotonic() - self._began
        self._thread.join(10)
        return Ended(os.waitstatus_to_exitcode(status), self._content.decode("utf-8", "replace"), seconds)


def _become(arguments: list[str], output: int, prepare: Callable[[], None] | None) -> None:
    code = 70
    try:
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        remake_thread_pool()
        if prepare is not None:
            prepare()
        main(arguments)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:  # the parent looks for the traceback
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


@dataclass
class Workload:
    """The specs, data and models of the campaign in one folder.

    Args:
        folder: Empty folder to work in.
        kinds: The kinds of run.
        straight: Kind of run -> result and duration of an undisturbed run.
    """

    folder: Path
    kinds: Sequence[str] = tuple(KINDS)
    straight: dict[str, tuple[dict[str, Any], float]] = field(default_factory=dict)

    def prepare(self) -> None:
        """Write rows, tokenizer, teacher and specs, and run every kind of run once without a fault."""
        rows = write_rows(self.folder / "train.jsonl", 40)
        shape = {name: value for name, value in TINY.items() if name not in ("model_type", "attention_dropout")}
        torch.manual_seed(0)
        write_model(self.folder / "teacher", rows, {**shape, "vocab_size": 4000})
        for kind in self.kinds:
            self.spec(kind).write_text(json.dumps(self.document(kind)), encoding="utf-8")
            ended = self.run(kind, "straight").wait()
            if ended.code:
                raise SystemExit(f"{kind} does not run without a fault:\n{ended.text[-3000:]}")
            self.straight[kind] = self.result(kind, "straight"), ended.seconds

    def spec(self, kind: str) -> Path:
        """The spec of a kind of run."""
        return self.folder / f"{kind}.json"

    def document(self, kind: str) -> dict[str, Any]:
        """The content of a spec: steps in several epochs, checkpoints and log entries between them, an evaluation."""
        parts = KINDS[kind]
        training = {"max_steps": 8, "batch_size": 4, "learning_rate": 1e-3, "save_steps": 3, "log_steps": 2}
        training |= parts.get("training", {})
        if "generation" in parts:
            training["generation"] = parts["generation"]
        return {
            "name": "run",
            "teacher": {"path": "teacher", "cache": parts.get("cache")},
            "student": {"config": TINY},
            "data": {
                "train": {"path": "train.jsonl", "limit": 30},
                "validation": {"path": "train.jsonl", "limit": 4},
                "max_length": 160,
                "max_prompt_length": 120,
                **({"processes": 1} if "alignment" in parts else {}),
            },
            "base_loss": parts["base_loss"],
            "alignment": parts.get("alignment"),
            "training": {**training, "trackers": []},
            "evaluation": {
                "sets": {"seen": {"path": "train.jsonl", "limit": 3}},
                "seeds": [1, 2],
                "max_new_tokens": 4,
            },
        }

    def run(self, kind: str, name: str, prepare: Callable[[], None] | None = None) -> Process:
        """Start a run, or go on with it, in an output folder of its own."""
        arguments = ["run", str(self.spec(kind)), "--set", f"output_dir={self.output(kind, name)}", "--resume"]
        return Process(arguments, prepare)

    def planned(self, spec: Path) -> Ended:
        """The end of ``mta run --dry-run``."""
        return Process(["run", str(spec), "--dry-run"]).wait()

    def output(self, kind: str, name: str) -> Path:
        """The output folder of a run."""
        return self.folder / "out" / f"{kind}-{name}"

    def result(self, kind: str, name: str) -> dict[str, Any]:
        """Everything that two equal runs have in common: weights, log, responses and scores."""
        run = self.output(kind, name) / "run"
        log = json.loads((run / "training.json").read_text(encoding="utf-8"))
        history = [{key: value for key, value in entry.items() if key not in TIMES} for entry in log["history"]]
        report = json.loads((run / "report.json").read_text(encoding="utf-8"))
        rows = [path.read_text(encoding="utf-8") for path in sorted((run / "predictions").rglob("*.jsonl"))]
        return {
            "weights": (run / "student" / "model.safetensors").read_bytes(),
            "history": history,
            "steps": log["total_steps"],
            "rows": rows,
            "scores": report["evaluation"]["scores"],
        }

    def difference(self, kind: str, name: str) -> str | None:
        """What a run has otherwise than the undisturbed one; None where nothing is."""
        try:
            result = self.result(kind, name)
        except (OSError, ValueError, KeyError) as error:
            return f"its results cannot be read ({type(error).__name__}: {error})"
        expected = self.straight[kind][0]
        differing = [key for key in expected if expected[key] != result[key]]
        return f"other {', '.join(differing)}" if differing else None

    def drawn_kinds(self, draw: random.Random, rounds: int) -> list[str]:
        """The kinds of run of so many rounds: each as often as the others, in a random order."""
        chosen = [self.kinds[index % len(self.kinds)] for index in range(rounds)]
        draw.shuffle(chosen)
        return chosen

    def clear(self, kind: str, name: str) -> None:
        """Delete a run."""
        shutil.rmtree(self.output(kind, name), ignore_errors=True)
