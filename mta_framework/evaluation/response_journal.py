"""Responses on disk while the predictions of their set are not complete yet.

Every process appends to a file of its own. A line that was cut off when its process was killed, or edited since, is not
read back; all others are, by however many processes resume.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mta_framework.errors import writing_to
from mta_framework.storage import json_digest

_HINT = "every response so far is kept: make room, then resume"

ResponseKey = tuple[str, int]
"""Digest of everything that a response was made from (``predictions.Key.responses``), and the index of its prompt."""


@dataclass(frozen=True)
class TextResponse:
    """A response: its text, whether it ended before the token limit, and its number of tokens."""

    text: str
    finished: bool
    tokens: int


@dataclass(frozen=True)
class Journal:
    """The unfinished responses of one model to one set.

    Args:
        folder: Directory of the model's predictions.
        name: Name of the set.
    """

    folder: Path
    name: str

    def read(self) -> dict[ResponseKey, TextResponse]:
        """The responses that all processes have written."""
        return dict(
            entry for path in self._files() for line in path.read_bytes().split(b"\n") for entry in _entries(line)
        )

    @contextmanager
    def writer(self, rank: int) -> Iterator[Callable[[ResponseKey, TextResponse], None]]:
        """Open the file of the process of this rank.

        Yields:
            Function that appends a response, which is on disk before the next is written.

        Raises:
            RunError: A response could not be written, e.g. because the disk is full.
        """
        path = self.folder / f"{self.name}.unfinished-{rank}.jsonl"

        def add(key: ResponseKey, response: TextResponse) -> None:
            entry = {"key": key[0], "row": key[1], **asdict(response)}
            line = json.dumps({**entry, "sha256": json_digest(entry)})
            with writing_to(path, _HINT):
                # The last line of an earlier attempt may have been cut off: this one starts on a new line.
                file.write(b"\n" + line.encode())
                file.flush()

        with writing_to(path, _HINT):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = path.open("ab")
        try:
            yield add
        finally:
            with suppress(OSError):  # a line that could not be written has been reported by ``add``
                file.close()

    def remove(self) -> None:
        """Delete the files, once the responses are kept elsewhere."""
        for path in self._files():
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        pattern = re.compile(rf"{re.escape(self.name)}\.unfinished-\d+\.jsonl")
        return [path for path in sorted(self.folder.glob("*.jsonl")) if pattern.fullmatch(path.name)]


def _entries(line: bytes) -> Iterator[tuple[ResponseKey, TextResponse]]:
    """The entry of a line; nothing where the line is empty, was cut off or edited."""
    try:
        entry: Any = json.loads(line)
        if entry.pop("sha256") == json_digest(entry):
            yield (entry["key"], entry["row"]), TextResponse(entry["text"], entry["finished"], entry["tokens"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return
