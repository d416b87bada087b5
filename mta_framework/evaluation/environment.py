"""What a run ran on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "spacy", "rouge-score")


def environment(device: torch.device | str) -> dict[str, str]:
    """Versions of Python and of the packages that can change a number, and the machine.

    Args:
        device: Where the run computed.

    Returns:
        What -> version or description, ready to print; packages that are not installed are left out.
    """
    packages = {name: _version(name) for name in ("mta-framework", *PACKAGES)}
    return {
        "python": platform.python_version(),
        **{name: found for name, found in packages.items() if found is not None},
        "platform": platform.platform(),
        "device": _device(torch.device(device)),
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores",
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} (CUDA {torch.version.cuda})"
    return f"{device.type} ({platform.processor() or platform.machine()})"
