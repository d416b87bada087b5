"""Where time goes: the stages of a command, and the parts of a training step."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


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


GENERATION = "generation"
PARSING = "parsing"
DATA = "data"
TEACHER = "teacher"
STUDENT = "student"
BASE_LOSS = "base loss"
ALIGNMENT = "alignment"
BACKWARD = "backward"
OPTIMISER = "optimiser"
PARTS = (GENERATION, PARSING, DATA, TEACHER, STUDENT, BASE_LOSS, ALIGNMENT, BACKWARD, OPTIMISER)
"""In the order in which they are told."""

Mark = Any
"""A moment: seconds on the clock, or an event in the stream of a GPU."""


class Stopwatch:
    """Books the seconds of training steps on their parts; what lies between steps belongs to none.

    Parts may lie within each other: a part is booked without those in it. On a GPU moments are events in its stream,
    read when they have passed: the stopwatch never waits for the GPU, and a part costs what the GPU was kept busy, or
    idle, with it.

    Args:
        device: That the steps run on.
    """

    def __init__(self, device: torch.device | str = "cpu"):
        self._on_gpu = str(device).startswith("cuda")
        self._open: list[str] = []
        self._marks: deque[tuple[str | None, Mark]] = deque()
        self._seconds: dict[str, float] = defaultdict(float)
        self._steps = 0

    def begin_step(self) -> None:
        """A step begins; what is in no other part of it is the optimiser's."""
        self._open = [OPTIMISER]
        self._mark()

    def end_step(self) -> None:
        """It is over."""
        self._open = []
        self._mark()
        self._steps += 1
        self._book()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What happens inside belongs to the part ``name``; outside of steps nothing is booked."""
        if not self._open:
            yield
            return
        self._open.append(name)
        self._mark()
        try:
            yield
        finally:
            self._open.pop()
            self._mark()

    def seconds_per_step(self) -> dict[str, float]:
        """Part -> seconds, the mean over all steps; parts that never occurred are left out."""
        if self._on_gpu and self._marks:
            self._marks[-1][1].synchronize()
        self._book()
        return {name: self._seconds[name] / self._steps for name in PARTS if name in self._seconds and self._steps}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"per_step": self.seconds_per_step(), "steps": self._steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` gave."""
        self._steps = state["steps"]
        self._seconds = defaultdict(float, {name: mean * self._steps for name, mean in state["per_step"].items()})

    def _mark(self) -> None:
        now: Mark = _cuda_event() if self._on_gpu else time.perf_counter()
        self._marks.append((self._open[-1] if self._open else None, now))

    def _book(self) -> None:
        """Everything up to the last moment that has passed."""
        while len(self._marks) > 1 and (not self._on_gpu or self._marks[1][1].query()):
            (part, begin), (_, end) = self._marks.popleft(), self._marks[0]
            if part is not None:
                self._seconds[part] += begin.elapsed_time(end) / 1000 if self._on_gpu else end - begin


def _cuda_event() -> torch.cuda.Event:
    import torch

    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
