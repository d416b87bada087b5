"""How long the stages of a command take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Stage -> seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Book what happens inside under ``name``."""
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
