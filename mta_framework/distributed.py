"""Distributes work over the processes of a run; with one process every function is the identity."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from mta_framework.errors import Fault, InputError, RunError

Item = TypeVar("Item")

_SHARDING_LAUNCHES = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "accelerate's FSDP plugin",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "accelerate's parallelism configuration",
}
"""Variable by which ``accelerate launch`` says that something is to shard the model -> what it is."""


def shard(items: Sequence[Item]) -> Sequence[Item]:
    """Return the items of this process: every n-th item, starting at its rank, with n processes.

    Args:
        items: All items, the same on every process.
    """
    state = processes()
    return items[state.process_index :: state.num_processes]


def gather(items: Sequence[Item], total: int) -> list[Item]:
    """Gather the results of all processes, in the order of the items that ``shard`` distributed.

    Args:
        items: Results of this process, one for each of its items.
        total: Number of items of all processes.
    """
    state = processes()
    gathered: list[Any] = [None] * total
    for rank, results in gather_object([(state.process_index, list(items))]):
        gathered[rank :: state.num_processes] = results
    return gathered


def run_on_main(compute: Callable[[], Item]) -> Item:
    """Compute a value on the main process alone and broadcast it to all processes.

    Args:
        compute: Computes the value.

    Raises:
        Exception: The exception that ``compute`` raised, on the main process.
        RunError: The same message, on all other processes, so that none waits forever.
    """
    if processes().num_processes == 1:
        return compute()
    value, failure, error = None, None, None
    if processes().is_main_process:
        try:
            value = compute()
        except Exception as raised:  # any exception must reach the other processes
            failure, error = str(raised), raised
    value, failure = broadcast_object_list([(value, failure)])[0]
    if error is not None:
        raise error
    if failure is not None:
        raise RunError(failure)
    return value  # type: ignore[return-value]


def processes() -> PartialState:
    """Return the state of the distributed run: rank, number of processes, device, barriers.

    The first call joins the process group, whether ``accelerate launch`` or ``torchrun`` started the processes. Without
    an accelerator, accelerate is explicitly asked for the CPU, so that processes communicate by gloo. Otherwise every
    process would regard itself as the only one, and all would write into one folder.

    Raises:
        InputError: The processes were started for DeepSpeed, accelerate's FSDP or another way of sharding.
    """
    if launched_for := [name for variable, name in _SHARDING_LAUNCHES.items() if _is_set(variable)]:
        problem = f"shards by {launched_for[0]}, which would shard the student alone"
        hint = "Leave that out of command and configuration of accelerate, and set training.sharding to fsdp2."
        raise InputError([Fault("accelerate launch", problem, "processes and nothing else", hint)])
    asked = _is_set("ACCELERATE_USE_CPU")
    # The main process may score for hours, e.g. with a judge, while the others wait for it.
    return PartialState(cpu=asked or not torch.accelerator.is_available(), timeout=timedelta(days=1))


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("1", "true", "yes")


def mesh() -> DeviceMesh:
    """Return all processes as a one-dimensional mesh, over which modules can be sharded; needs two or more."""
    state = processes()
    return init_device_mesh(state.device.type, (state.num_processes,))


def shutdown() -> None:
    """Leave the process group; gloo aborts a process that ends without leaving."""
    processes().destroy_process_group()
