"""Where the host waits for the device: the lines of code, and in which phase of a training they stand.

A wait costs more than the transfer it is for: until it ends, no further kernel is launched. On a GPU torch itself names
each operation that waits (``torch.cuda.set_sync_debug_mode``). On a CPU, where nothing waits, the operations that would
are recorded as they are dispatched, copies between devices excepted.
"""

from __future__ import annotations

import linecache
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

STEP, BACKWARD, GENERATION, VALIDATION, CHECKPOINT = "step", "backward", "generation", "validation", "checkpoint"
_PHASE_OF_FUNCTION = {
    "_save_checkpoint": CHECKPOINT,
    "evaluate": VALIDATION,
    "_apply_policy": GENERATION,
    "_engine_run_backward": BACKWARD,
}
"""Function that stands in the stack of every operation of a phase -> the phase."""

_MESSAGE = "called a synchronizing CUDA operation"
_SOURCES = ("mta_framework", "mta_plugins")
_READS = {
    "_local_scalar_dense",
    "nonzero",
    "is_nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "equal",
    "bincount",
}
"""Operations whose result, or its shape, the host has to know before it goes on."""


@dataclass(frozen=True)
class Wait:
    """One wait of the host.

    Args:
        line: File and line of the framework that waited, or of the library where none of its lines is in the stack.
        code: The line itself.
        inside: File and line of the library that it called and that waited; empty where it waited itself.
        phase: Phase of the training.
    """

    line: str
    code: str
    inside: str
    phase: str


@contextmanager
def recording(device: str) -> Iterator[list[Wait]]:
    """Record every wait of the host within the block, in the list that the block is given.

    Args:
        device: Device that the block computes on.
    """
    waits: list[Wait] = []
    if device == "cpu":
        with _HostReads(waits):
            yield waits
        return
    with warnings.catch_warnings():
        show = warnings.showwarning

        def record(message: Warning | str, *others: Any, **named: Any) -> None:
            if _MESSAGE in str(message):
                waits.append(_wait(_stack(sys._getframe(1))))
            else:
                show(message, *others, **named)  # type: ignore[arg-type]

        warnings.filterwarnings("always", message=_MESSAGE)
        warnings.showwarning = record  # type: ignore[assignment]
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode("default")


def first_wait(work: Callable[[], object], device: str) -> Wait | None:
    """Run something until the host would wait, and return where; None if it never does.

    The warnings of a backward pass arrive when it is over. An error is raised in the very line, even there.

    Args:
        work: What to run.
        device: Device that it computes on; on a CPU nothing is run.
    """
    if device == "cpu":
        return None
    torch.cuda.set_sync_debug_mode("error")
    try:
        work()
    except RuntimeError as error:
        if _MESSAGE not in str(error):
            raise
        return _wait(_stack_of(error.__traceback__))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return None


def by_line(waits: Sequence[Wait]) -> list[tuple[Wait, int]]:
    """List the distinct waits with their number, most frequent first."""
    return Counter(waits).most_common()


class _HostReads(TorchDispatchMode):
    def __init__(self, waits: list[Wait]):
        super().__init__()
        self._waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in _READS or _selects_by_mask(func, args):
            self._waits.append(_wait(_stack(sys._getframe(1))))
        return func(*args, **(kwargs or {}))


def _selects_by_mask(func: Any, args: Sequence[Any]) -> bool:
    indices = args[1] if func.overloadpacket.__name__ == "index" else ()
    return any(index is not None and index.dtype == torch.bool for index in indices)


def _stack(frame: FrameType | None) -> list[tuple[str, int, str]]:
    """File, line and function of each call, innermost first."""
    calls = []
    while frame is not None:
        calls.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    return calls


def _stack_of(traceback: TracebackType | None) -> list[tuple[str, int, str]]:
    calls = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        calls.append((code.co_filename, traceback.tb_lineno, code.co_name))
        traceback = traceback.tb_next
    return calls[::-1]


def _wait(stack: Sequence[tuple[str, int, str]]) -> Wait:
    calls = [call for call in stack if call[0] not in (__file__, warnings.__file__)]
    innermost = next((call for call in calls if "torch" not in Path(call[0]).parts), calls[0])
    ours = (call for call in calls if any(source in Path(call[0]).parts for source in _SOURCES))
    path, line, _ = call = next(ours, innermost)
    inside = "" if call == innermost else f"{_short(Path(innermost[0]))}:{innermost[1]}"
    phases = (_PHASE_OF_FUNCTION[name] for _, _, name in calls if name in _PHASE_OF_FUNCTION)
    return Wait(f"{_short(Path(path))}:{line}", linecache.getline(path, line).strip(), inside, next(phases, STEP))


def _short(path: Path) -> str:
    """The path from its package on."""
    parents = [index for index, part in enumerate(path.parts) if part in (*_SOURCES, "site-packages", "benchmarks")]
    if not parents:
        return path.name
    first = parents[-1] + (path.parts[parents[-1]] == "site-packages")
    return "/".join(path.parts[first:])
