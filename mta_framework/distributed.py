"""Work shared among the processes of a distributed run; with one process every function is the identity."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from mta_framework.errors import RunError

Item = TypeVar("Item")


def shard(items: Sequence[Item]) -> Sequence[Item]:
    """This process's share: every n-th item, from its own rank on."""
    state = processes()
    return items[state.process_index :: state.num_processes]


def gather(own: Sequence[Item], total: int) -> list[Item]:
    """The results of all processes, in the order of the ``total`` items that ``shard`` dealt out."""
    state = processes()
    whole: list[Any] = [None] * total
    for rank, items in gather_object([(state.process_index, list(own))]):
        whole[rank :: state.num_processes] = items
    return whole


def run_on_main(compute: Callable[[], Item]) -> Item:
    """Compute on the main process alone and hand the value to all.

    Raises:
        Exception: What ``compute`` raised, on the main process.
        RunError: The same message, on the others: none of them waits for a value that will not come.
    """
    if processes().num_processes == 1:
        return compute()
    value, failure, error = None, None, None
    if processes().is_main_process:
        try:
            value = compute()
        except Exception as raised:  # whatever it is, the other processes must hear of it
            failure, error = str(raised), raised
    value, failure = broadcast_object_list([(value, failure)])[0]
    if error is not None:
        raise error
    if failure is not None:
        raise RunError(failure)
    return value  # type: ignore[return-value]


def processes() -> PartialState:
    """Rank, number of processes, device, and waiting for each other.

    The first call joins the others, whatever launched them (``accelerate launch`` or ``torchrun``). Without an
    accelerator they talk by gloo, which accelerate has to be told: left alone, every process would take itself for
    the only one, and all would write into one folder.
    """
    asked = os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("1", "true", "yes")
    # The main process may score for hours, by a judge say, while the others wait for it.
    return PartialState(cpu=asked or not torch.accelerator.is_available(), timeout=timedelta(days=1))


def shutdown() -> None:
    """Part from the other processes in order; gloo aborts a process that ends without."""
    processes().destroy_process_group()
