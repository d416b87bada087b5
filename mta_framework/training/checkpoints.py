"""What a checkpoint holds, and which one is the last.

A folder ``checkpoint-STEP`` has the student's trained weights and the projections as safetensors, and the trainer's
state: optimiser, schedule, random generators (torch's own format, only ever read with ``weights_only``), progress. What
base loss, batch policy and stopwatch have to remember is JSON, and so is the list of its files.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import JsonValue
from safetensors.torch import load_file, save_file
from transformers import TrainerState

from mta_framework.errors import Fault, InputError, MTAError, RunError, as_plugin_error, error_text
from mta_framework.interfaces import BatchPolicy
from mta_framework.models.export import load_weights, save_weights
from mta_framework.storage import write_atomically
from mta_framework.training.distiller import Distiller

MEMORY = "memory.json"

PROJECTIONS = "projections.safetensors"

STUDENT = "student"

_log = logging.getLogger(__name__)


def save(distiller: Distiller, policy: BatchPolicy | None, folder: Path) -> None:
    """Write weights of student and projections, and what the others remember, into ``folder``.

    Raises:
        RunError: Base loss or batch policy cannot say what they have to remember.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(distiller.student, folder / STUDENT)
    if distiller.alignment is not None and (projections := distiller.alignment.state_dict()):
        save_file(projections, folder / PROJECTIONS)
    with as_plugin_error(owner(distiller)):
        own = _plain(distiller.base_loss.state())
    with as_plugin_error(owner(distiller, policy)):
        other = _plain(policy.state() if policy else None)
    memory = {"base_loss": own, "batch_policy": other, "stopwatch": distiller.stopwatch.state()}
    (folder / MEMORY).write_text(json.dumps(memory, allow_nan=False), encoding="utf-8")


def load(distiller: Distiller, policy: BatchPolicy | None, folder: Path) -> None:
    """Read back what ``save`` wrote.

    Raises:
        RunError: It cannot be read, or base loss or batch policy make nothing of what they are given.
    """
    with reading(folder):
        load_weights(distiller.student, folder / STUDENT)
        if distiller.alignment is not None and distiller.alignment.state_dict():
            distiller.alignment.load_state_dict(load_file(folder / PROJECTIONS))
        memory = json.loads((folder / MEMORY).read_text(encoding="utf-8"))
        own, other = memory["base_loss"], memory["batch_policy"]
        if "stopwatch" in memory:
            distiller.stopwatch.restore(memory["stopwatch"])
    if own is not None:
        with as_plugin_error(owner(distiller)):
            distiller.base_loss.restore(own)
    if policy is not None and other is not None:
        with as_plugin_error(owner(distiller, policy)):
            policy.restore(other)


def owner(distiller: Distiller, policy: BatchPolicy | None = None) -> str:
    """What messages call the base loss, or its batch policy where that is given."""
    loss = f"base loss {distiller.base_loss.NAME!r}"
    return loss if policy is None else f"batch policy {type(policy).__name__} of {loss}"


@contextmanager
def reading(checkpoint: Path) -> Iterator[None]:
    """Turn whatever a damaged file raises into a ``RunError`` that says what to do."""
    try:
        yield
    except MTAError:
        raise
    except Exception as error:  # torch, safetensors and json have a dozen unrelated ones
        hint = "Delete this folder, then resume: the checkpoint before it is used."
        raise RunError(f"{checkpoint}: cannot be read ({error_text(error)}). {hint}") from error


def last(folder: Path) -> Path | None:
    """The checkpoint to resume from, or None; damaged ones that are later are told.

    Raises:
        InputError: There are checkpoints, and none of them is whole.
    """
    require_whole(folder)
    whole = existing(folder)
    for path in _named(folder):
        if whole and _step(path) > _step(whole[-1]):
            _log.warning("%s is damaged (%s); going on from %s", path, damage(path), whole[-1].name)
    return whole[-1] if whole else None


def require_whole(folder: Path) -> None:
    """Refuse to begin anew where there are checkpoints, and none of them is whole.

    Raises:
        InputError: That is so.
    """
    if folder.exists() and not folder.is_dir():
        problem, hint = "is no folder (got a file)", "Delete it; without student and checkpoints a run begins anew."
        raise InputError([Fault(str(folder), problem, "a folder of checkpoints, or none", hint)])
    named = _named(folder)
    if named and not existing(folder):
        problem = f"holds no checkpoint that is whole (got {named[-1].name}: {damage(named[-1])})"
        hint = "Put the missing files back, or delete the folder to train from the beginning."
        raise InputError([Fault(str(folder), problem, "at least one whole checkpoint, or none at all", hint)])


def existing(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    return [path for path in _named(folder) if damage(path) is None]


def state_of(checkpoint: Path) -> TrainerState:
    """How far training had come, and its log.

    Raises:
        RunError: It cannot be read.
    """
    with reading(checkpoint):
        return TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))


def publish(folder: Path, step: int, keep: int) -> None:
    """Give the checkpoint that lies in ``folder/partial`` its name, then drop all but the last ``keep`` whole ones."""
    target = folder / f"checkpoint-{step}"
    partial = folder / "partial" / target.name
    list_files(partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    discard_partial(folder)
    kept = existing(folder)[-keep:]
    for path in _named(folder):
        if path not in kept:
            shutil.rmtree(path)


def discard_partial(folder: Path) -> None:
    """Remove what was not published."""
    shutil.rmtree(folder / "partial", ignore_errors=True)


def _named(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def _plain(state: JsonValue) -> JsonValue:
    """Refused here, and not when all is written, if it is no standard JSON."""
    json.dumps(state, allow_nan=False)
    return state


MANIFEST = "files.json"


def list_files(folder: Path) -> None:
    """Write down the files of a folder, with their sizes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    write_atomically(folder / MANIFEST, json.dumps(sizes, indent=2))


def damage(folder: Path) -> str | None:
    """What is wrong with a folder whose files were listed, as half a sentence; None: it is as it was."""
    try:
        sizes: dict[str, int] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, size in sizes.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if (found := path.stat().st_size) != size:
                return f"{name} has {found:,} bytes instead of {size:,}"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, AttributeError, TypeError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    return None
