"""Files on disk: written to the side and renamed, so that a reader sees the old content or the new, never a part."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mta_framework.errors import RunError

if TYPE_CHECKING:
    import pyarrow as pa

_log = logging.getLogger(__name__)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) to the side, then put it in place; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    side = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        side.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(side, path)
    finally:
        side.unlink(missing_ok=True)


class Shards:
    """The Arrow files of a cache folder: never changed once written, named after the digest of their content.

    Several processes may read and write them at once.

    Args:
        folder: Made when it is first used.
        cache: What messages call it.
        setting: The settings that say where it lies, for messages.
    """

    def __init__(self, folder: Path, cache: str, setting: str):
        self._folder = folder
        self._cache = cache
        self._setting = setting
        self._known: set[Path] = set()

    def unread(self) -> Iterator[pa.Table]:
        """The tables that this object has neither given nor written, the oldest first.

        They are mapped into memory. A damaged file is removed, with a warning.

        Raises:
            RunError: The folder cannot be created.
        """
        self._make()
        for path in sorted(set(self._folder.glob("*.arrow")) - self._known, key=_age):
            if (table := self._read(path)) is not None:
                self._known.add(path)
                yield table

    def add(self, table: pa.Table) -> None:
        """Write a file to the side and put it in place.

        Raises:
            RunError: The folder cannot be created, or not be written to.
        """
        import pyarrow as pa

        self._make()
        aside = self._folder / f".{uuid.uuid4().hex}.part"
        try:
            with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            with pa.memory_map(str(aside)) as source:
                path = self._folder / f"{_digest(source)}.arrow"
            os.replace(aside, path)
            self._known.add(path)
        except OSError as error:
            raise self._failure("write to", error) from error
        finally:
            aside.unlink(missing_ok=True)

    def _make(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._failure("create", error) from error

    def _failure(self, doing: str, error: OSError) -> RunError:
        problem = f"cannot {doing} {self._folder} ({error.strerror or error}); make room, or set {self._setting}"
        return RunError(f"{self._cache}: {problem}")

    def _read(self, path: Path) -> pa.Table | None:
        import pyarrow as pa  # takes its time, and those who only write JSON need it not

        try:
            source = pa.memory_map(str(path))
            if _digest(source) != path.stem:
                raise ValueError("its content is not what was written")
            table: pa.Table = pa.ipc.open_file(source).read_all()
            return table
        except ValueError as error:
            _log.warning("%s: %s is damaged and left out (%s)", self._cache, path, error)
            with suppress(OSError):
                path.unlink()
        except OSError as error:  # it may be whole all the same
            _log.warning("%s: %s cannot be read and is left out (%s)", self._cache, path, error)
        return None


def _age(path: Path) -> tuple[int, str]:
    try:
        return path.stat().st_mtime_ns, path.name
    except OSError:
        return 0, path.name


def _digest(source: pa.NativeFile) -> str:
    source.seek(0)
    return hashlib.sha256(source.read_buffer()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write standard JSON that a person can read, complete or not at all."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read back what ``write_json`` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))
