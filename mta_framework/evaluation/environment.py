"""The software and hardware that a run used."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_PACKAGES = ("mta-framework", "torch", "transformers", "peft", "accelerate", "datasets")


def environment(
    device: torch.device | str, packages: Iterable[str] = (), plugin_files: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Versions of Python and of the packages and files that can change a result, and the machine.

    Args:
        device: Device that the run computed on.
        packages: Distributions that the plugins of the run depend on.
        plugin_files: SHA-256 digest of each file given by ``-p`` that a plugin of the run comes from, by its path.

    Returns:
        Name -> version or description, ready to print; packages that are not installed are left out.
    """
    return {
        "python": platform.python_version(),
        **package_versions((*_PACKAGES, *packages)),
        **({"plugin files": _listed(plugin_files)} if plugin_files else {}),
        "platform": platform.platform(),
        "device": device_name(torch.device(device)),
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores",
    }


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """The version of each distribution that is installed.

    Args:
        packages: Names of distributions.
    """
    versions = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def _listed(files: Mapping[str, str]) -> str:
    return ", ".join(f"{Path(path).name} (SHA-256 {digest})" for path, digest in files.items())


def device_name(device: torch.device) -> str:
    """Name of a device for people, such as ``NVIDIA H100 80GB HBM3 (CUDA 12.8)`` or ``cpu (x86_64)``."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} (CUDA {torch.version.cuda})"
    return f"{device.type} ({platform.processor() or platform.machine()})"
