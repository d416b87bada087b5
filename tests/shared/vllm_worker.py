"""What tests with vLLM itself do to its processes."""

from __future__ import annotations

import psutil


def end_worker() -> None:
    """Kill vLLM's worker, as a system without memory does."""
    [worker] = [process for process in psutil.Process().children(recursive=True) if process.name() == "VLLM::Worker"]
    worker.kill()
