"""Keeps responses on disk from the moment that they are there, until all of their set are.

Every process appends to a file of its own. What a process was writing when it was killed is not read back, nor is a
line that was edited since; the rest is, by however many processes go on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mta_framework.errors import RunError
from mta_framework.evaluation.predictions import digest

Place = tuple[str, int]
"""What a response was made from, as a digest (``predictions.Key.responses``), and the number of its prompt."""


@dataclass(frozen=True)
class Response:
    """A response: its text, whether it came to an end, how many tokens it has."""

    text: str
    finished: bool
    tokens: int


class Journal:
    """The unfinished responses of one model to one set.

    Args:
        folder: Of the model's predictions.
        name: Of the set.
    """

    def __init__(self, folder: Path, name: str):
        self._folder = folder
        self._name = name

    def read(self) -> dict[Place, Response]:
        """All responses that are there, whichever process wrote them."""
        return dict(entry for path in self._files() for line in _lines(path) for entry in _entries(line))

    def writer(self, rank: int) -> Writer:
        """Appends what the process of this rank makes."""
        return Writer(self._folder / f"{self._name}.unfinished-{rank}.jsonl")

    def remove(self) -> None:
        """Forget them: they are kept elsewhere."""
        for path in self._files():
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        form = re.compile(rf"{re.escape(self._name)}\.unfinished-\d+\.jsonl")
        return [path for path in sorted(self._folder.glob("*.jsonl")) if form.fullmatch(path.name)]


class Writer:
    """Appends responses to a file, each on disk before the next is written; used as a context."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab")
        except OSError as error:
            raise self._failed(error) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError):  # of a line that could not be written, which was told then
            self._file.close()

    def add(self, place: Place, response: Response) -> None:
        """Append one.

        Raises:
            RunError: The disk is full, or the like.
        """
        entry = {"key": place[0], "row": place[1], **asdict(response)}
        line = json.dumps({**entry, "sha256": digest(entry)})
        try:
            # The line before it may have been torn: whatever stands there, this one begins anew.
            self._file.write(b"\n" + line.encode())
            self._file.flush()
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> RunError:
        return RunError(
            f"cannot write to {self._path} ({error.strerror}); what is there is kept: make room, then resume"
        )


def _lines(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().split(b"\n") if line]


def _entries(line: bytes) -> Iterator[tuple[Place, Response]]:
    """The entry of a line; none where the line was torn or edited."""
    try:
        entry: Any = json.loads(line)
        if entry.pop("sha256") == digest(entry):
            yield (entry["key"], entry["row"]), Response(entry["text"], entry["finished"], entry["tokens"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return
