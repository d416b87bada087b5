"""What tests with vLLM itself do to its processes."""

from __future__ import annotations

import psutil


def end_worker() -> None:
    """Kill vLLM's worker, as a system without memory does."""
    workers = [process for process in psutil.Process().children(recursive=True) if process.name() == "VLLM::Worker"]
    max(workers, key=psutil.Process.create_time).kill()  # that of a vLLM that was stopped may still be ending
