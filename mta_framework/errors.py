"""Errors that a user meets: every one says where, what is wrong, what is allowed and what to do."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with an input.

    Args:
        where: Dotted path into the spec (``training.batch_size``), or ``file:line``.
        problem: What is wrong, with the value that was given, e.g. ``must be at least 1 (got 0)``.
        expected: What would be right, e.g. ``an integer >= 1``.
        hint: What to do, a full sentence.
    """

    where: str
    problem: str
    expected: str
    hint: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}; {self.expected}. {self.hint}"


class MTAError(Exception):
    """Base of all errors that this framework raises on purpose."""


class InputError(MTAError):
    """The input is faulty; the command exits with 2. Carries all faults that were found, not only the first."""

    def __init__(self, faults: Iterable[Fault]):
        self.faults: Sequence[Fault] = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


@contextmanager
def collect_faults(faults: list[Fault]) -> Iterator[None]:
    """Keep the faults of an ``InputError`` that is raised inside, so that the next check can add its own."""
    try:
        yield
    except InputError as error:
        faults.extend(error.faults)


@contextmanager
def faults_at(where: str) -> Iterator[None]:
    """Turn a plugin's ``ValueError("wrong; allowed. todo.")`` into an ``InputError`` about ``where``."""
    try:
        yield
    except ValueError as error:
        problem, _, rest = str(error).partition("; ")
        expected, _, hint = rest.partition(". ")
        raise InputError([Fault(where, problem, expected, hint)]) from error


class RunError(MTAError):
    """A run that started could not go on; the command exits with 1."""


@contextmanager
def as_plugin_error(plugin: str) -> Iterator[None]:
    """Turn whatever foreign code raises into a ``RunError`` that says whose it is; errors on purpose pass.

    Args:
        plugin: What messages call it, e.g. ``base loss 'kl'``.
    """
    try:
        yield
    except MTAError:
        raise
    except Exception as error:  # a plugin may be anyone's code
        raise RunError(f"{plugin} failed ({error_text(error)})") from error


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_FULL_TOLD = ("No space left on device", "Disk quota exceeded", "File too large", "enforce fail at inline_container.cc")
"""In the messages of libraries that hide the error of the operating system in one of their own; the last is torch's."""


@contextmanager
def explain_disk_full(folder: Path) -> Iterator[None]:
    """Turn what is raised when a disk is full into a ``RunError`` that says what to do.

    Args:
        folder: Of the run that is written.
    """
    try:
        yield
    except MTAError:
        raise
    except Exception as error:  # each library has one of its own
        if not _of_a_full_disk(error):
            raise
        hint = "What was complete before is kept. Make room, then go on with --resume."
        raise RunError(f"{folder}: there is no space left to write to ({error_text(error)}). {hint}") from error


def _of_a_full_disk(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    if any(message in str(error) for message in _FULL_TOLD):
        return True
    cause = error.__cause__ or error.__context__
    return cause is not None and _of_a_full_disk(cause)


def error_text(error: BaseException) -> str:
    """Kind and message of a foreign error, and the line that it comes from: commands show no traceback."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = f", in {Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}" if frame is not None else ""
    return f"{type(error).__name__}: {error}{place}"


def nearest(name: str, candidates: Iterable[str]) -> str:
    """The sentence that helps after a misspelt name.

    Returns:
        ``Did you mean 'x'?`` where a candidate is close, else an empty string.
    """
    close = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else ""
