"""What a checkpoint holds, and which one is the last.

A folder ``checkpoint-STEP`` has the student's trained weights and the projections as safetensors, and the trainer's
state: optimiser, schedule, random generators (torch's own format, only ever read with ``weights_only``), progress. What
base loss, batch policy and stopwatch have to remember is JSON.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file
from transformers import TrainerState

from mta_framework.interfaces import BatchPolicy
from mta_framework.models.export import load_weights, save_weights
from mta_framework.training.distiller import Distiller

MEMORY = "memory.json"
PROJECTIONS = "projections.safetensors"
STUDENT = "student"


def save(distiller: Distiller, policy: BatchPolicy | None, folder: Path) -> None:
    """Write weights of student and projections, and what the others remember, into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(distiller.student, folder / STUDENT)
    if distiller.alignment is not None and (projections := distiller.alignment.state_dict()):
        save_file(projections, folder / PROJECTIONS)
    memory = {
        "base_loss": distiller.base_loss.state(),
        "batch_policy": policy.state() if policy else None,
        "stopwatch": distiller.stopwatch.state(),
    }
    (folder / MEMORY).write_text(json.dumps(memory, allow_nan=False), encoding="utf-8")


def load(distiller: Distiller, policy: BatchPolicy | None, folder: Path) -> None:
    """Read back what ``save`` wrote."""
    load_weights(distiller.student, folder / STUDENT)
    if distiller.alignment is not None and distiller.alignment.state_dict():
        distiller.alignment.load_state_dict(load_file(folder / PROJECTIONS))
    memory = json.loads((folder / MEMORY).read_text(encoding="utf-8"))
    if memory["base_loss"] is not None:
        distiller.base_loss.restore(memory["base_loss"])
    if policy is not None and memory["batch_policy"] is not None:
        policy.restore(memory["batch_policy"])
    if "stopwatch" in memory:
        distiller.stopwatch.restore(memory["stopwatch"])


def existing(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def last(folder: Path) -> Path | None:
    """The checkpoint to resume from, or None."""
    return next(reversed(existing(folder)), None)


def state_of(checkpoint: Path) -> TrainerState:
    """How far training had come, and its log."""
    return TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))


def publish(folder: Path, step: int, keep: int) -> None:
    """Give the checkpoint that lies in ``folder/partial`` its name, then drop the oldest beyond ``keep``."""
    target = folder / f"checkpoint-{step}"
    shutil.rmtree(target, ignore_errors=True)
    (folder / "partial" / target.name).rename(target)
    shutil.rmtree(folder / "partial")
    for path in existing(folder)[:-keep]:
        shutil.rmtree(path)
