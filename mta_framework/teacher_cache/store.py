"""The records of one kind on disk: Arrow files that are mapped into memory, with a checksum per record."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from mta_framework.errors import writing_to
from mta_framework.storage import Shards, read_json, shard_files, write_json

_log = logging.getLogger(__name__)

RECORDS = "records"
"""Subfolder of a teacher's folder that has a folder for each kind of records."""

KIND = "kind.json"
"""Name of the file that describes the records of a folder; its time of change is the time of their last use."""

LOCK = "filling.lock"
"""File in the folder of a teacher that a run which fills it locks."""

DIGEST_LENGTH = 16
"""Letters of the digest with which the name of a folder ends."""

_KEY_BYTES = 32
RECORD_OVERHEAD = _KEY_BYTES + 8 + 4
"""Bytes of a record on disk besides its values: key, offset and checksum."""

_SCHEMA = pa.schema({"key": pa.binary(_KEY_BYTES), "data": pa.large_binary(), "crc": pa.uint32()})
_SETTING = "teacher.cache"
_MISMATCH = "a record does not fit its checksum"


class DescribedKind(Protocol):
    """What a store needs to know of the kind of its records."""

    @property
    def folder_name(self) -> str:
        """Name of the folder, which differs between kinds whose records differ."""

    @property
    def description(self) -> Mapping[str, Any]:
        """Description of the kind for people, as plain JSON values."""


class RecordStore:
    """The records of one kind, of one teacher, by key.

    Nothing is created or changed by reading, except the time of last use and files that are damaged; a folder that
    cannot be written to can be read. Files are mapped into memory, and of a file only the keys are read until a record
    is asked for. Several processes and machines may read and add at once; of records with the same key the first is
    used.

    Args:
        folder: Folder of the teacher.
        kind: Kind of the records.
    """

    def __init__(self, folder: Path, kind: DescribedKind):
        self.folder = folder / RECORDS / kind.folder_name
        self._kind = kind
        self._shards = Shards(self.folder, "teacher cache", _SETTING)
        self._seen: dict[Path, tuple[int, ...]] = {}
        self._maps: list[_MappedShard] = []
        self._row_of: dict[bytes, tuple[_MappedShard, int]] = {}
        self._is_used = False

    def __contains__(self, key: bytes) -> bool:
        """Whether there is a record of a key, as far as files have been read; it may yet prove damaged."""
        return key in self._row_of

    def __len__(self) -> int:
        """The number of distinct keys."""
        return len(self._row_of)

    @property
    def num_bytes(self) -> int:
        """Size of the files on disk, in bytes."""
        return sum(status[0] for path in shard_files(self.folder) if (status := _status(path)) is not None)

    def refresh(self) -> None:
        """Read the keys of the files that were written since the last call.

        A damaged file is removed, with a warning; where it cannot be removed it is left out.
        """
        if not self._is_used:
            self._is_used = True
            with suppress(OSError):  # there is none yet, or it is another's
                os.utime(self.folder / KIND)
        for path in shard_files(self.folder):
            self._read(path)

    def get(self, key: bytes) -> memoryview | None:
        """Return the data of a record, as a read-only view into the mapped file.

        The checksum is verified at each call. A file with a record that does not fit its checksum is removed as a
        whole, with a warning, and its records count as absent.

        Args:
            key: Key of the record, 32 bytes.

        Returns:
            The data, which stays valid as long as the view is kept; None where there is no intact record.
        """
        while (row := self._row_of.get(key)) is not None:
            shard, index = row
            if (data := shard.data(index, key)) is not None:
                return data
            _discard(shard.path, _MISMATCH)
            self._forget(shard)
        return None

    def intact(self, keys: Sequence[bytes]) -> list[bool]:
        """Verify the checksums of records; damaged files are removed as in ``get``.

        Files are read one after the other, and do not stay in the memory of this process.

        Args:
            keys: Keys of the records, in any order.

        Returns:
            For each key, whether there is an intact record.
        """
        rows_of: dict[_MappedShard, list[tuple[int, bytes]]] = {}
        for key, (shard, index) in ((key, self._row_of[key]) for key in set(keys) if key in self._row_of):
            rows_of.setdefault(shard, []).append((index, key))
        for shard, rows in rows_of.items():
            if not _verified(shard.path, sorted(rows)):
                self._forget(shard)
        return [key in self._row_of for key in keys]

    def add(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        """Write records to disk as a new file, complete or not at all.

        Args:
            rows: Key and data of each record; those with a key that this object knows already are left out.

        Raises:
            RunError: The folder cannot be created or written to.
        """
        rows = [(key, data) for key, data in rows if key not in self]
        if not rows:
            return
        self._describe()
        keys, data = zip(*rows, strict=True)
        columns = {"key": keys, "data": data, "crc": [_checksum(*row) for row in rows]}
        self._read(self._shards.add(pa.table(columns, schema=_SCHEMA)))

    def _describe(self) -> None:
        description = dict(self._kind.description)
        with suppress(OSError, ValueError):
            if read_json(self.folder / KIND) == description:
                return
        with writing_to(self.folder, f"make room, or set {_SETTING}"):
            write_json(self.folder / KIND, description)

    def _read(self, path: Path) -> None:
        status = _status(path)
        if status is None or self._seen.get(path) == status:
            return
        self._seen[path] = status
        if (shard := _mapped(path)) is not None:
            self._maps.append(shard)
            self._add_keys(shard)

    def _forget(self, shard: _MappedShard) -> None:
        self._maps.remove(shard)
        self._row_of = {}
        for intact in self._maps:
            self._add_keys(intact)

    def _add_keys(self, shard: _MappedShard) -> None:
        for index, key in enumerate(shard.keys()):
            self._row_of.setdefault(key, (shard, index))


@dataclass(frozen=True, eq=False)
class _MappedShard:
    """A mapped file: the data of record r is ``buffer[bounds[r] : bounds[r + 1]]``."""

    path: Path
    key_buffer: memoryview
    bounds: memoryview
    buffer: memoryview
    checksums: memoryview

    def __len__(self) -> int:
        return len(self.checksums)

    def keys(self) -> Iterator[bytes]:
        """The keys, row by row."""
        content = bytes(self.key_buffer)
        return (content[start : start + _KEY_BYTES] for start in range(0, len(self) * _KEY_BYTES, _KEY_BYTES))

    def data(self, index: int, key: bytes) -> memoryview | None:
        """The data of a record; None where it does not fit the checksum of key and data."""
        data = self.buffer[self.bounds[index] : self.bounds[index + 1]]
        return data if _checksum(key, data) == self.checksums[index] else None


def map_shard(path: Path) -> _MappedShard:
    """Map a file of records into memory; of its content only the bounds of the records are read.

    Raises:
        ValueError: It is no complete file of records.
        OSError: The system cannot read it.
    """
    try:
        # A map outlives its file, so that files in any number can be mapped.
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            if not reader.schema.equals(_SCHEMA) or reader.num_record_batches != 1:
                raise ValueError("it has other columns than records have")
            batch = reader.get_batch(0)
        batch.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(str(error).partition("\n")[0]) from error  # Arrow refuses content as if it could not be read
    if any(column.null_count for column in batch.columns):
        raise ValueError("a record has no value")
    (_, keys), (_, bounds, data), (_, checksums) = (column.buffers() for column in batch.columns)
    rows = batch.num_rows
    return _MappedShard(
        path,
        memoryview(keys)[: rows * _KEY_BYTES],
        memoryview(bounds)[: 8 * (rows + 1)].cast("q"),
        memoryview(data if data is not None else b"").cast("B"),
        memoryview(checksums)[: 4 * rows].cast("I"),
    )


def _mapped(path: Path) -> _MappedShard | None:
    """Map a file; None, with a warning, where that fails."""
    try:
        return map_shard(path)
    except ValueError as error:
        _discard(path, str(error))
    except FileNotFoundError:  # another process found it damaged
        pass
    except OSError as error:  # the file may be intact all the same
        _log.warning("teacher cache: %s cannot be read and is left out (%s)", path, error)
    return None


def _verified(path: Path, rows: Sequence[tuple[int, bytes]]) -> bool:
    """Whether records of a file are intact, by a map of its own, whose memory is given back at the end."""
    shard = _mapped(path)
    if shard is None:
        return False
    if all(index < len(shard) and shard.data(index, key) is not None for index, key in rows):
        return True
    _discard(path, _MISMATCH)
    return False


def _discard(path: Path, problem: str) -> None:
    _log.warning("teacher cache: %s is damaged, and its records are computed anew (%s)", path, problem)
    with suppress(OSError):
        path.unlink()


def _status(path: Path) -> tuple[int, ...] | None:
    """Size and what else differs when a file is replaced by another of its name; None for one that has gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


def _checksum(key: bytes, data: bytes | memoryview) -> int:
    return zlib.crc32(data, zlib.crc32(key))
