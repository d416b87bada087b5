"""Processes in name alone: what one of several would hold can be counted in a single one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh


@contextmanager
def simulated_mesh(device_type: str, num_processes: int) -> Iterator[DeviceMesh]:
    """Make a mesh of processes that exchange nothing: each operation between them leaves its result as it is.

    Args:
        device_type: Type of the devices, e.g. ``cuda``.
        num_processes: Number of processes; if this is one of so many, all of them must come here.
    """
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if distributed.is_initialized():
        group = distributed.new_group(backend="fake")
        yield DeviceMesh.from_group(group, device_type)
        return
    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=num_processes)
    try:
        yield init_device_mesh(device_type, (num_processes,))
    finally:
        distributed.destroy_process_group()
