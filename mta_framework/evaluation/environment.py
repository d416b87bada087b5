"""The software and hardware that a run used."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import torch

_PACKAGES = ("mta-framework", "torch", "transformers", "peft", "accelerate", "datasets")


def environment(device: torch.device | str, packages: Iterable[str] = ()) -> dict[str, str]:
    """Versions of Python and of the packages that can change a result, and the machine.

    Args:
        device: Device that the run computed on.
        packages: Distributions that the plugins of the run depend on.

    Returns:
        Name -> version or description, ready to print; packages that are not installed are left out.
    """
    versions = {}
    for package in (*_PACKAGES, *packages):
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {
        "python": platform.python_version(),
        **versions,
        "platform": platform.platform(),
        "device": _device(torch.device(device)),
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores",
    }


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} (CUDA {torch.version.cuda})"
    return f"{device.type} ({platform.processor() or platform.machine()})"
