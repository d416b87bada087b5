"""Peak memory of a piece of work, beyond what is held before it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import torch


def peak_bytes(work: Callable[[], object], device: str) -> int:
    """Most memory that ``work`` holds at once: the allocator's peak on a GPU, resident memory (Linux) on a CPU."""
    gc.collect()
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        before = _resident("VmRSS")
        work()
        return _resident("VmHWM") - before
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return torch.cuda.max_memory_allocated() - before


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))
