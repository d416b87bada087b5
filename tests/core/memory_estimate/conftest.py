from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def peak_bytes(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], int]:
    """Measures the peak of the tensors that a function allocates, by torch's profiler."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))
    sys.modules.pop("memory", None)
    from memory import peak_bytes

    return lambda work: peak_bytes(work, "cpu")
