"""Errors that a user meets. Every one says where it is, what is wrong, what is expected and what to do."""

from __future__ import annotations

import difflib
import errno
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from pydantic_core import ValidationError

Item = TypeVar("Item")
Result = TypeVar("Result")

_LIBRARIES = frozenset(
    ("accelerate", "datasets", "numpy", "peft", "pluggy", "pydantic", "scipy", "tokenizers", "torch", "transformers")
)
"""Modules that plugins call, beside the standard library: a line in them does not say where a plugin is wrong."""

MAX_LISTED = 20
"""Number of faults of a data set that are listed, so that a broken file does not fill the screen."""


@dataclass(frozen=True)
class Fault:
    """One fault of an input, shown as ``where: problem; expected EXPECTED. hint``.

    Args:
        where: Dotted path into the spec (``training.batch_size``), or ``file:line``.
        problem: What is wrong, with the given value if there is one, e.g. ``must be at least 1 (got 0)``.
        expected: What is expected instead, as a noun phrase, e.g. ``an integer >= 1``.
        hint: What to do, as a full sentence.
    """

    where: str
    problem: str
    expected: str
    hint: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}; expected {self.expected}. {self.hint}"


class MTAError(Exception):
    """Base of all errors that the framework raises on purpose."""


class InputError(MTAError):
    """The input has faults; the command exits with status 2.

    Args:
        faults: All faults of the input, not only the first.
    """

    def __init__(self, faults: Iterable[Fault]):
        self.faults: Sequence[Fault] = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class FaultList(list[Fault]):
    """Faults of an input, collected so that all are reported at once; of too many, the first are listed one by one.

    Args:
        faults: Faults to begin with.
        where: Field of the spec that names the input, e.g. ``data.train``; used for the count of faults not listed.
        most: Number of faults that ``add`` keeps, before it counts the others; None: all.
    """

    def __init__(self, faults: Iterable[Fault] = (), where: str = "", most: int | None = None):
        super().__init__(faults)
        self._where = where
        self._most = most
        self._unlisted = 0

    def add(self, fault: Fault) -> None:
        """Add a fault to the list, or to the count of those that are not listed."""
        if self._most is None or len(self) < self._most:
            self.append(fault)
        else:
            self._unlisted += 1

    def raise_any(self) -> None:
        """Raise the faults, if there are any.

        Raises:
            InputError: There is at least one fault.
        """
        if self._unlisted:
            problem = f"{self._unlisted} more rows are faulty than the {self._most} that are listed"
            self.append(Fault(self._where, problem, "rows without a fault", "Correct the listed ones first."))
        if self:
            raise InputError(self)


@contextmanager
def collect_faults(faults: list[Fault]) -> Iterator[None]:
    """Collect the faults of an ``InputError`` raised inside, so that further checks can run.

    Args:
        faults: List that they are appended to.
    """
    try:
        yield
    except InputError as error:
        faults.extend(error.faults)


@contextmanager
def faults_of_teacher_run(path: Path | str, where: str = "teacher.run") -> Iterator[None]:
    """Raise the faults of an ``InputError`` raised inside as those of the spec of ``teacher.run``.

    Args:
        path: That spec, which every fault then names.
        where: Field, or argument of the command line, that names the spec.
    """
    try:
        yield
    except InputError as error:
        named = [
            fault.where if fault.where.startswith(str(path)) else f"{path}: {fault.where}" for fault in error.faults
        ]
        faults = [replace(fault, where=f"{where}: {name}") for fault, name in zip(error.faults, named, strict=True)]
        raise InputError(faults) from error


def apply_to_all(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Apply a function to each item, and return the results.

    Raises:
        InputError: The faults of all calls at once.
    """
    faults, results = FaultList(), []
    for item in items:
        with collect_faults(faults):
            results.append(function(item))
    faults.raise_any()
    return results


@contextmanager
def faults_at(where: str) -> Iterator[None]:
    """Turn a plugin's ``ValueError("problem; expected NOUN PHRASE. What to do.")`` into an ``InputError`` at ``where``.

    A message of another form is the problem as a whole.

    Args:
        where: Dotted path into the spec.
    """
    try:
        yield
    except ValueError as error:
        problem, _, rest = error_message(error).partition("; expected ")
        expected, _, hint = rest.partition(". ")
        hint = hint or "Change the options of the plugin."
        problem = "is refused by the plugin" if problem == type(error).__name__ else problem.rstrip(".")
        raise InputError([Fault(where, problem, expected or "other options", hint)]) from error


class RunError(MTAError):
    """A run could not continue; the command exits with status 1."""


@contextmanager
def as_plugin_error(plugin: str) -> Iterator[None]:
    """Turn any exception of a plugin's code into a ``RunError`` that names the plugin.

    An ``MTAError`` passes, and so does a lack of memory, for which no plugin is to blame.

    Args:
        plugin: Name of the plugin in the message, e.g. ``base loss 'kl'``.
    """
    try:
        yield
    except MTAError:
        raise
    except Exception as error:  # a plugin may be anyone's code
        if is_out_of_memory(error):
            raise
        raise RunError(f"{plugin} failed ({error_text(error)})") from error


_UNSAFE_ADVICE = "weights_only"
"""In every message of ``torch.load`` about a file that it refuses."""

_PAGES = "For further information visit "
"""Beginning of the last line of pydantic's messages."""

_LONGEST_NAME = 200
"""Characters of a name up to which similar ones are looked for, which takes time with the square of its length."""

_DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_DISK_FULL_MESSAGES = (
    "No space left on device",
    "Disk quota exceeded",
    "File too large",
    "enforce fail at inline_container.cc",
)
"""Parts of the messages of libraries that wrap the operating system's error; the last is torch's."""

_OUT_OF_MEMORY_MESSAGES = (
    "out of memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "not enough memory",
    "ALLOC_FAILED",
)
"""Parts of the messages of devices, of torch on a CPU, and of CUDA's libraries, which raise no error of one class."""


def explain_out_of_memory(hint: str) -> AbstractContextManager[None]:
    """Turn an exception that a lack of memory caused into a ``RunError`` that says what to do; others pass.

    Args:
        hint: What to do, as whole sentences.
    """
    return _explain(is_out_of_memory, lambda error: f"there is too little memory ({error}). {hint}")


def explain_disk_full(folder: Path) -> AbstractContextManager[None]:
    """Turn an exception that a full disk caused into a ``RunError`` that says what to do; others pass.

    Args:
        folder: Folder of the run that is being written.
    """
    hint = "All complete files are kept. Make room, then continue with --resume."
    return _explain(_is_disk_full, lambda error: f"{folder}: no space left on its disk ({error}). {hint}")


@contextmanager
def _explain(is_cause: Callable[[Exception], bool], message: Callable[[str], str]) -> Iterator[None]:
    """Turn exceptions of one cause into a ``RunError``, whose message is made of theirs."""
    try:
        yield
    except MTAError:
        raise
    except Exception as error:  # each library raises one of its own
        if not is_cause(error):
            raise
        raise RunError(message(error_text(error))) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a foreign error says that memory ran out."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    says_so = any(part in error_message(error) for part in _OUT_OF_MEMORY_MESSAGES)
    return isinstance(error, (RuntimeError, OSError)) and says_so


@contextmanager
def writing_to(path: Path, hint: str) -> Iterator[None]:
    """Turn an ``OSError`` into a ``RunError`` that says what could not be written to, and what to do.

    Args:
        path: Folder or file that is written inside.
        hint: What to do, behind a semicolon.
    """
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write to {path} ({refusal(error, path)}); {hint}") from error


def refusal(error: OSError, path: Path) -> str:
    """Why the system refused a path, in its words; a link that leads nowhere is named, for which it has none.

    Args:
        error: Error of the system.
        path: File or folder that was asked for.
    """
    link = broken_link(path)
    return error.strerror or str(error) if link is None else f"{link} is a link that leads nowhere"


def broken_link(path: Path) -> Path | None:
    """Find the symbolic link without a target that stands for a path or one of its parents; None: there is none."""
    return next((part for part in (path, *path.parents) if part.is_symlink() and not part.exists()), None)


def _is_disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _DISK_FULL_ERRNOS:
        return True
    if any(message in error_message(error) for message in _DISK_FULL_MESSAGES):
        return True
    cause = error.__cause__ or error.__context__
    return cause is not None and _is_disk_full(cause)


def error_text(error: BaseException) -> str:
    """Describe a foreign error by type, message and source line, since commands show no traceback.

    The line is the last one outside of this package and the libraries that it needs, where there is one: a plugin's
    rather than what it called.
    """
    frames = [
        (frame.f_globals.get("__name__", "").partition(".")[0], f", in {Path(frame.f_code.co_filename).name}:{line}")
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    foreign = [(module, where) for module, where in frames if module != __package__]
    plugins = [(module, where) for module, where in foreign if module not in _LIBRARIES | sys.stdlib_module_names]
    (_, where) = (plugins or foreign or frames or [("", "")])[-1]
    return f"{error_summary(error)}{where}"


def error_summary(error: BaseException) -> str:
    """Describe a foreign error by type and message in one line; by its type alone where it has no message."""
    name, message = type(error).__name__, error_message(error)
    return name if message == name else f"{name}: {message}"


def error_message(error: BaseException) -> str:
    """The message of a foreign error in one line; its type where it has none or cannot be shown.

    Advice that is unsafe to follow is left out, and so are the addresses of pydantic's pages.
    """
    if isinstance(error, ValidationError):
        first, *others = error.errors(include_url=False)
        more = f" (and {len(others)} more)" if others else ""
        return f"{'.'.join(map(str, first['loc'])) or 'its content'}: {first['msg']}{more}"
    lines = (line.strip() for line in _written_message(error).splitlines())
    return " ".join(line for line in lines if line and not line.startswith(_PAGES)) or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of a foreign error's message, for libraries that go on at length; its type where it has none."""
    return _written_message(error).strip().split("\n", 1)[0] or type(error).__name__


def _written_message(error: BaseException) -> str:
    try:
        message = str(error)
    except Exception:  # foreign code
        return f"a {type(error).__name__} without a readable message"
    # Torch goes on to say how to have the file run code.
    return "it holds more than tensors and plain values, or is damaged" if _UNSAFE_ADVICE in message else message


def counted(count: float, noun: str) -> str:
    """A count with its noun, which takes an s in the plural.

    Args:
        count: How many.
        noun: What is counted, in the singular.
    """
    return f"{count:,} {noun}{'s' if count != 1 else ''}"


def plural(noun: str) -> str:
    """The plural of a noun that takes an s, maybe with more words behind it."""
    return re.sub(r"^\w+", r"\g<0>s", noun)


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Suggest the candidate nearest to a misspelt name.

    Returns:
        ``Did you mean 'x'?``, or an empty string if no candidate is close.
    """
    close = nearest_name(name, candidates)
    return f"Did you mean {close!r}?" if close is not None else ""


def nearest_name(name: str, candidates: Iterable[str]) -> str | None:
    """Find the candidate nearest to a misspelt name; None if no candidate is close, or the name is overlong."""
    if len(name) > _LONGEST_NAME:
        return None
    close = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.5)
    return close[0] if close else None


def require_known(where: str, noun: str, names: Iterable[str], known: Sequence[str]) -> None:
    """Refuse names that nothing has.

    Args:
        where: Option that gives the names.
        noun: What they should be names of, e.g. ``metric of all runs``; its first word takes an s in the plural.
        names: Names given, in any number.
        known: Names that exist.

    Raises:
        InputError: A fault for each unknown name, with the nearest one that exists.
    """
    FaultList(
        Fault(
            where,
            f"no {noun} is called {name!r}",
            f"one of the {plural(noun)}: {', '.join(known)}",
            nearest(name, known) or "Choose one of them.",
        )
        for name in dict.fromkeys(names)
        if name not in known
    ).raise_any()
