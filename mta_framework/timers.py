"""Timers for the stages of a command and for the parts of a training step; a limit on the time of foreign code."""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End the block with an exception once it has taken too long, e.g. in an endless loop of foreign Python code.

    In the main thread a wait for the system ends, too. In other threads, and on systems without alarms, the limit is
    noticed when Python code goes on.

    Args:
        seconds: Longest time that the block may take.

    Raises:
        TimeoutError: The block has taken longer.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    limit = _by_alarm if in_main_thread and hasattr(signal, "SIGALRM") else _by_thread
    with limit(seconds, f"it took more than {seconds:g} s"):
        yield


@contextmanager
def _by_alarm(seconds: float, message: str) -> Iterator[None]:
    def stop(signum: int, frame: object) -> None:
        raise TimeoutError(message)

    start = time.monotonic()
    handler = signal.signal(signal.SIGALRM, stop)
    remaining, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if remaining:  # somebody else's alarm goes on
            signal.setitimer(signal.ITIMER_REAL, max(remaining - (time.monotonic() - start), 1e-3), interval)


@contextmanager
def _by_thread(seconds: float, message: str) -> Iterator[None]:
    """Have another thread raise the exception in this one."""

    class Expired(TimeoutError):
        def __str__(self) -> str:
            return message

    raise_in, thread = ctypes.pythonapi.PyThreadState_SetAsyncExc, ctypes.c_ulong(threading.get_ident())
    lock, running, expired = threading.Lock(), False, False

    def stop() -> None:
        nonlocal expired
        with lock:
            if running:
                expired = True
                raise_in(thread, ctypes.py_object(Expired))

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        running = True
        yield
    finally:
        running = False
        with lock:  # whoever is about to raise it has done so
            pass
        if expired:
            raise_in(thread, None)  # it may not have arrived, and must not later
        timer.cancel()


class Clock:
    """Measures the stages of a command.

    Attributes:
        seconds: Seconds by stage.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the block as the stage ``name``; nothing is recorded if it raises."""
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
HEALTH = "health of responses"
BACKWARD = "backward"
OPTIMISER = "optimiser"
PARTS = (GENERATION, PARSING, DATA, TEACHER, STUDENT, BASE_LOSS, ALIGNMENT, HEALTH, BACKWARD, OPTIMISER)
"""The parts of a training step, in the order in which they are reported."""

Mark = Any
"""A moment: seconds on the clock, or an event in a GPU's stream."""


class Stopwatch:
    """Measures how long the parts of training steps take; time between steps is not counted.

    Parts can be nested: the time of an inner part is not counted to the outer one. On a GPU moments are events in its
    stream, read once they have passed: steps never wait for the stopwatch, and a part lasts as long as the GPU was
    busy, or idle, with it.

    Args:
        device: Device that the steps run on.
    """

    def __init__(self, device: torch.device | str = "cpu"):
        self._on_gpu = str(device).startswith("cuda")
        self._on_cpu = str(device).startswith("cpu")
        self._cpu_seconds = 0.0
        self._cpu_began = 0.0
        self._open: list[str] = []
        self._marks: deque[tuple[str | None, Mark]] = deque()
        self._seconds: dict[str, float] = defaultdict(float)
        self._steps = 0

    def begin_step(self) -> None:
        """Begin a step; its time outside of any ``part`` is attributed to the optimiser."""
        self._open = [OPTIMISER]
        self._cpu_began = time.process_time()
        self._mark()

    def end_step(self) -> None:
        """End the step."""
        self._open = []
        self._mark()
        self._cpu_seconds += time.process_time() - self._cpu_began
        self._steps += 1
        self._accumulate()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Attribute the time of this block to the part ``name``; does nothing between steps."""
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
        """Return the mean seconds per step of each part that occurred, in the order of ``PARTS``."""
        self._settle()
        return {name: self._seconds[name] / self._steps for name in PARTS if name in self._seconds and self._steps}

    def processor_seconds(self) -> float:
        """Return the time of all steps: on a CPU the processor time of this process, elsewhere the elapsed time."""
        if self._on_cpu:
            return self._cpu_seconds
        self._settle()
        return sum(self._seconds.values())

    def state(self) -> dict[str, Any]:
        """Return the measured time as JSON, for the checkpoint."""
        return {"per_step": self.seconds_per_step(), "steps": self._steps, "cpu_seconds": self._cpu_seconds}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the time that ``state`` returned."""
        self._steps, self._cpu_seconds = state["steps"], state["cpu_seconds"]
        self._seconds = defaultdict(float, {name: mean * self._steps for name, mean in state["per_step"].items()})

    def _mark(self) -> None:
        now: Mark = _cuda_event() if self._on_gpu else time.perf_counter()
        self._marks.append((self._open[-1] if self._open else None, now))

    def _settle(self) -> None:
        """Add up the time of all steps, after the GPU has passed the end of the last one."""
        if self._on_gpu and self._marks:
            self._marks[-1][1].synchronize()
        self._accumulate()

    def _accumulate(self) -> None:
        """Add up the time to the last moment that has passed."""
        while len(self._marks) > 1 and (not self._on_gpu or self._marks[1][1].query()):
            (part, begin), (_, end) = self._marks.popleft(), self._marks[0]
            if part is not None:
                self._seconds[part] += begin.elapsed_time(end) / 1000 if self._on_gpu else end - begin


def _cuda_event() -> torch.cuda.Event:
    import torch

    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
