"""The memory of this machine, and models whose weights alone are larger."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

import torch

from mta_framework.errors import Fault

_any_machine = ContextVar("any_machine", default=False)
_MEMINFO, _CGROUP_LIMIT = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")


@contextmanager
def for_any_machine() -> Iterator[None]:
    """Within it no model is too large: a run is planned, maybe for another machine."""
    token = _any_machine.set(True)
    try:
        yield
    finally:
        _any_machine.reset(token)


def memory_fault(weight_bytes: int, where: str) -> Fault | None:
    """The fault of models whose weights alone are larger than the memory of this machine, swap included.

    Weights are loaded into main memory first, once by each process of this machine.

    Args:
        weight_bytes: Bytes of the weights.
        where: Field of the spec that names the model.

    Returns:
        The fault; None if the weights fit, the memory is not known, or the run is planned for any machine.
    """
    needed = weight_bytes * _local_processes()
    memory = machine_memory()
    if memory is None or needed <= memory or _any_machine.get():
        return None
    problem = f"has more weights than this machine has memory (got {_size(needed)})"
    return Fault(where, problem, f"at most {_size(memory)}", "Choose a smaller model, or a larger machine.")


def process_memory(device: torch.device) -> int | None:
    """Bytes of memory for what a process of this machine holds on its device; None where the system does not tell.

    Args:
        device: Device of the process: an accelerator, whose memory it has for itself, or the CPU.
    """
    if device.type == "cpu":
        memory = machine_memory()
        return None if memory is None else memory // _local_processes()
    tell = getattr(torch.get_device_module(device), "mem_get_info", None)  # CUDA, ROCm and XPU have it
    return None if tell is None else int(tell(device)[1])


def machine_memory() -> int | None:
    """Bytes of memory and swap that this process may use; None where the system does not tell."""
    limits = []
    with suppress(OSError, ValueError):
        lines = (line.split() for line in _MEMINFO.read_text().splitlines())
        limits.append(sum(int(line[1]) * 1024 for line in lines if line[0] in ("MemTotal:", "SwapTotal:")))
    with suppress(OSError, ValueError):  # "max" where there is no limit
        limits.append(int(_CGROUP_LIMIT.read_text()))
    return min(limits, default=None)


def _local_processes() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"
