"""Writes and reads checkpoints, and finds the latest intact one.

A folder ``checkpoint-STEP`` holds

    student/                 the student's trained weights, as safetensors
    projections.safetensors  the alignment's projections
    memory.json              state of base loss, batch policy, stopwatch and log
    files.json               the manifest: its files, their sizes and digests

and the trainer's state: optimiser, schedule, random generators (in torch's format, only ever read with
``weights_only``) and progress. A sharded checkpoint has ``shards/`` in place of weights and state of the optimiser, of
which only its settings are left in ``optimizer.pt``.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import JsonValue
from safetensors.torch import load_file, save_file
from transformers import TrainerState

from mta_framework.errors import (
    Fault,
    InputError,
    MTAError,
    RunError,
    as_plugin_error,
    error_summary,
    error_text,
    is_out_of_memory,
)
from mta_framework.interfaces import BatchPolicy
from mta_framework.models.export import load_weights, save_weights
from mta_framework.models.sharding import reshard, sharded_like, whole
from mta_framework.storage import bring_to_disk, damaged_files, inner_files, write_manifest
from mta_framework.training.checkpoint_shards import is_sharded_checkpoint, load_weight_shards
from mta_framework.training.distiller import Distiller, plugin_label

STUDENT = "student"

PROJECTIONS = "projections.safetensors"

STATE = "memory.json"

TRAINER_STATE = "trainer_state.json"

_log = logging.getLogger(__name__)


def save(
    distiller: Distiller, policy: BatchPolicy | None, log: Mapping[str, JsonValue], folder: Path, *, write: bool = True
) -> None:
    """Write a full checkpoint to ``folder``, except for the trainer's own state.

    Args:
        distiller: Student, projections, base loss and stopwatch to save. Where it is sharded, all processes must call
            this to gather its weights.
        policy: Batch policy to save; None: there is none.
        log: State of the log: everything that was measured since its last entry.
        folder: Folder of the checkpoint, new or existing.
        write: Whether this process writes the checkpoint.

    Raises:
        RunError: ``state`` of the base loss or batch policy failed, or returned a value that is not JSON.
    """
    save_weights(distiller.student, folder / STUDENT, write=write)
    state_dict = distiller.alignment.state_dict() if distiller.alignment is not None else {}
    projections = {name: whole(value) for name, value in state_dict.items()}
    if not write:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if projections:
        save_file(projections, folder / PROJECTIONS)
    save_memory(distiller, policy, log, folder)


def require_storable(distiller: Distiller, policy: BatchPolicy | None) -> None:
    """Check before the first step that base loss and batch policy can be stored: checkpoints come late.

    Raises:
        RunError: ``state`` failed, or returned a value that is not JSON.
    """
    _states(distiller, policy)


def save_memory(distiller: Distiller, policy: BatchPolicy | None, log: Mapping[str, JsonValue], folder: Path) -> None:
    """Write the state of base loss, batch policy, stopwatch and log to an existing folder; arguments as of ``save``.

    Raises:
        RunError: ``state`` of the base loss or batch policy failed, or returned a value that is not JSON.
    """
    state = {**_states(distiller, policy), "stopwatch": distiller.stopwatch.state(), "log": log}
    (folder / STATE).write_text(json.dumps(state, allow_nan=False), encoding="utf-8")


def load(distiller: Distiller, policy: BatchPolicy | None, folder: Path) -> dict[str, Any]:
    """Restore what ``save`` wrote, or ``save_shards`` and ``save_memory``, by any number of processes.

    Args:
        distiller: Student, projections, base loss and stopwatch to restore.
        policy: Batch policy to restore; None: there is none.
        folder: Folder of the checkpoint.

    Returns:
        The state of the log.

    Raises:
        RunError: The checkpoint cannot be read, or ``restore`` of the base loss or batch policy failed.
    """
    load_weights_of(distiller, folder)
    with explain_unreadable(folder):
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        loss_state, policy_state = state["base_loss"], state["batch_policy"]
        distiller.stopwatch.restore(state["stopwatch"])
        log: dict[str, Any] = state["log"]
    if loss_state is not None:
        with as_plugin_error(plugin_label(distiller)):
            distiller.base_loss.restore(loss_state)
    if policy is not None and policy_state is not None:
        with as_plugin_error(plugin_label(distiller, policy)):
            policy.restore(policy_state)
    return log


def load_weights_of(distiller: Distiller, folder: Path) -> None:
    """Restore student and projections alone.

    Args:
        distiller: Student and projections to restore.
        folder: Folder of the checkpoint.

    Raises:
        RunError: The checkpoint cannot be read.
    """
    reshard(distiller)
    with explain_unreadable(folder):
        if is_sharded_checkpoint(folder):
            load_weight_shards(distiller, folder)
            return
        load_weights(distiller.student, folder / STUDENT)
        if distiller.alignment is not None and (present := distiller.alignment.state_dict()):
            saved = load_file(folder / PROJECTIONS)
            saved |= {name: sharded_like(saved[name], value) for name, value in present.items() if name in saved}
            distiller.alignment.load_state_dict(saved)


@contextmanager
def explain_unreadable(checkpoint: Path) -> Iterator[None]:
    """Turn any exception of reading a checkpoint into a ``RunError`` that says what to do; a lack of memory passes."""
    try:
        yield
    except MTAError:
        raise
    except Exception as error:  # torch, safetensors and json raise a dozen unrelated ones
        if is_out_of_memory(error):
            raise
        hint = (
            "Look first at the disk and at the versions of torch and transformers: a checkpoint whose checksums are "
            "wrong is passed over by --resume. To do without this one, move its folder away, then go on with --resume."
        )
        raise RunError(f"{checkpoint}: cannot be read ({error_text(error)}). {hint}") from error


def latest(folder: Path) -> Path | None:
    """Find the latest intact checkpoint, or None; logs a warning for each later one, which is damaged.

    Args:
        folder: Folder of the run's checkpoints; it need not exist.

    Raises:
        InputError: There are checkpoints, and none of them is intact; or ``folder`` is a file.
    """
    intact = require_intact(folder)
    for path in _checkpoints(folder):
        if intact is not None and _step(path) > _step(intact):
            _log.warning("%s is damaged (%s); continuing from %s", path, _problem(path), intact.name)
    return intact


def require_intact(folder: Path) -> Path | None:
    """Find the latest intact checkpoint, or None; refuse to start from the beginning over damaged ones alone.

    Args:
        folder: Folder of the run's checkpoints; it need not exist.

    Raises:
        InputError: There are checkpoints, and none of them is intact; or ``folder`` is a file.
    """
    if folder.exists() and not folder.is_dir():
        problem, hint = "is a file", "Delete it; without student and checkpoints a run starts over."
        raise InputError([Fault(str(folder), problem, "a folder of checkpoints, or none", hint)])
    checkpoints = _checkpoints(folder)
    intact = next((path for path in reversed(checkpoints) if _problem(path) is None), None)
    if checkpoints and intact is None:
        problem = f"holds no intact checkpoint (got {checkpoints[-1].name}: {_problem(checkpoints[-1])})"
        hint = "Put the missing files back, or delete the folder to train from the beginning."
        raise InputError([Fault(str(folder), problem, "at least one intact checkpoint, or none at all", hint)])
    return intact


def _problem(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be resumed from, as part of a sentence; None: it and the best one by then are intact."""
    if problem := damage(checkpoint):
        return problem
    try:
        best_step = json.loads((checkpoint / TRAINER_STATE).read_text(encoding="utf-8"))["best_global_step"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    best = path_of(checkpoint.parent, best_step or _step(checkpoint))
    problem = damage(best) if best != checkpoint else None
    return f"of its best checkpoint {best.name}, {problem}" if problem else None


def complete_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints whose files are all there and of the right size, oldest first; contents are not read."""
    return [path for path in _checkpoints(folder) if damage(path, contents=False) is None]


def trainer_state(checkpoint: Path) -> TrainerState:
    """Read the trainer's progress and log from a checkpoint.

    Raises:
        RunError: It cannot be read.
    """
    with explain_unreadable(checkpoint):
        return TrainerState.load_from_json(str(checkpoint / TRAINER_STATE))


def require_same_plan(checkpoint: Path, total_steps: int, steps_per_epoch: int) -> None:
    """Refuse a checkpoint of a training that was planned otherwise, from which this one would take other steps.

    Args:
        checkpoint: An intact checkpoint.
        total_steps: Optimiser steps of the whole training.
        steps_per_epoch: Optimiser steps of an epoch.

    Raises:
        InputError: Its ``trainer_state.json`` disagrees.
        RunError: It cannot be read.
    """
    state = trainer_state(checkpoint)
    epoch = state.global_step / steps_per_epoch
    differs = [
        f"{name} {began:g} instead of {now:g}"
        for name, began, now in (
            ("max_steps", state.max_steps, total_steps),
            ("global_step", state.global_step, _step(checkpoint)),
            ("epoch", state.epoch or 0.0, epoch),
        )
        if abs(began - now) > 1e-6 * max(abs(now), 1.0)
    ]
    if differs:
        problem = f"is of a training with other steps (got {', '.join(differs)})"
        hint = "Put data and settings back, or delete the run folder to start over."
        raise InputError([Fault(str(checkpoint / TRAINER_STATE), problem, "the steps of this spec and data", hint)])


def path_of(folder: Path, step: int) -> Path:
    """The checkpoint after ``step`` steps, existing or not."""
    return folder / f"checkpoint-{step}"


def publish(folder: Path, step: int, keep: int, best_step: int | None = None) -> None:
    """Move a checkpoint from ``folder/partial`` to ``folder``, then delete all but the latest ``keep`` complete ones.

    Args:
        folder: Folder of the run's checkpoints.
        step: Step of the new checkpoint; later ones, which a resumed run passed over, are deleted.
        keep: Number of checkpoints to keep, at least 1.
        best_step: Step of the best checkpoint, which is kept in addition; None: there is none.
    """
    target = path_of(folder, step)
    partial = folder / "partial" / target.name
    write_manifest(partial, inner_files(partial))
    bring_to_disk(partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    discard_partial(folder)
    bring_to_disk(folder, inside=False)
    kept = [path for path in complete_checkpoints(folder) if _step(path) <= step][-keep:]
    for path in _checkpoints(folder):
        if path not in kept and _step(path) != best_step:
            if problem := damage(path, contents=False):
                _log.warning("%s is damaged (%s) and is deleted", path, problem)
            shutil.rmtree(path)


def discard_partial(folder: Path) -> None:
    """Delete the checkpoint that was not published."""
    shutil.rmtree(folder / "partial", ignore_errors=True)


def _checkpoints(folder: Path) -> list[Path]:
    paths = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(paths, key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def _states(distiller: Distiller, policy: BatchPolicy | None) -> dict[str, JsonValue]:
    """The states of base loss and batch policy; fails here, where the plugin is known, if they are not JSON."""
    return {
        "base_loss": _json_state(distiller.base_loss.state, plugin_label(distiller)),
        "batch_policy": None if policy is None else _json_state(policy.state, plugin_label(distiller, policy)),
    }


def _json_state(state: Callable[[], JsonValue], plugin: str) -> JsonValue:
    with as_plugin_error(plugin):
        value = state()
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        expected = "what JSON can hold: numbers, strings, lists, objects"
        raise RunError(f"{plugin}: state() must return {expected} (got {error_summary(error)})") from error
    return value


def damage(checkpoint: Path, contents: bool = True) -> str | None:
    """Describe the damage to a checkpoint, as part of a sentence; None: its files are as they were written.

    Args:
        checkpoint: Folder of the checkpoint.
        contents: Whether contents are read, and not only sizes.
    """
    return next((f"{name} {problem}" for name, problem in damaged_files(checkpoint, contents=contents)), None)
