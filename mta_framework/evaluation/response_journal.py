"""Responses on disk while the predictions of their set are not complete yet.

Every process appends to a file of its own. A line that was cut off when its process was killed, or edited since, is not
read back; all others are, by however many processes resume.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mta_framework.errors import writing_to
from mta_framework.evaluation.predictions import digest

ResponseKey = tuple[str, int]
"""Digest of everything that a response was made from (``predictions.Key.responses``), and the index of its prompt."""


@dataclass(frozen=True)
class TextResponse:
    """A response: its text, whether it ended before the token limit, and its number of tokens."""

    text: str
    finished: bool
    tokens: int


class Journal:
    """The unfinished responses of one model to one set.

    Args:
        folder: Directory of the model's predictions.
        name: Name of the set.
    """

    def __init__(self, folder: Path, name: str):
        self._folder = folder
        self._name = name

    def read(self) -> dict[ResponseKey, TextResponse]:
        """The responses that all processes have written."""
        return dict(
            entry for path in self._files() for line in path.read_bytes().split(b"\n") for entry in _entries(line)
        )

    def writer(self, rank: int) -> Writer:
        """The writer for the process of this rank."""
        return Writer(self._folder / f"{self._name}.unfinished-{rank}.jsonl")

    def remove(self) -> None:
        """Delete the files, once the responses are kept elsewhere."""
        for path in self._files():
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        pattern = re.compile(rf"{re.escape(self._name)}\.unfinished-\d+\.jsonl")
        return [path for path in sorted(self._folder.glob("*.jsonl")) if pattern.fullmatch(path.name)]


class Writer:
    """Context manager that appends responses to a file, each flushed before the next is written."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> Self:
        with self._writing():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError):  # a line that could not be written has been reported by ``add``
            self._file.close()

    def add(self, key: ResponseKey, response: TextResponse) -> None:
        """Append one response.

        Raises:
            RunError: It could not be written, e.g. because the disk is full.
        """
        entry = {"key": key[0], "row": key[1], **asdict(response)}
        line = json.dumps({**entry, "sha256": digest(entry)})
        with self._writing():
            # The last line of an earlier attempt may have been cut off: this one starts on a new line.
            self._file.write(b"\n" + line.encode())
            self._file.flush()

    def _writing(self) -> AbstractContextManager[None]:
        return writing_to(self._path, "every response so far is kept: make room, then resume")


def _entries(line: bytes) -> Iterator[tuple[ResponseKey, TextResponse]]:
    """The entry of a line; nothing where the line is empty, was cut off or edited."""
    try:
        entry: Any = json.loads(line)
        if entry.pop("sha256") == digest(entry):
            yield (entry["key"], entry["row"]), TextResponse(entry["text"], entry["finished"], entry["tokens"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return
