"""The records of one kind on disk: Arrow files that are mapped into memory, with a checksum per record."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from mta_framework.errors import RunError, writing_to
from mta_framework.spec.model_files import RECORDS
from mta_framework.storage import Shards, bring_to_disk, read_json, shard_files, write_json
from mta_framework.teacher_cache.mapped_shard import SCHEMA, MappedShard, checksum, map_shard

_log = logging.getLogger(__name__)

KIND = "kind.json"
"""Name of the file that describes the records of a folder; its time of change is the time of their last use."""

LOCK = "filling.lock"
"""File in the folder of a teacher that a run which fills it locks."""

DIGEST_LENGTH = 16
"""Letters of the digest with which the name of a folder ends."""

_MERGED_BYTES = 256 * 2**20
"""Most bytes of a file that small ones are merged into, which are held in memory while it is written."""

_MOST_SMALL = 64
"""Number of files smaller than half of that up to which none are merged."""

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

    Nothing is created or changed by reading, except the time of last use and files that are damaged: those of records
    are removed, and the description is written anew. A folder that cannot be written to can be read. Files are mapped
    into memory, and of a file only the keys are read until a record is asked for. Several processes and machines may
    read and add at once; of records with the same key the first is used.

    Args:
        folder: Folder of the teacher.
        kind: Kind of the records.
        is_remade: Whether what is damaged can be computed anew, and is deleted; otherwise it is only left out.
    """

    def __init__(self, folder: Path, kind: DescribedKind, is_remade: bool = True):
        self.folder = folder / RECORDS / kind.folder_name
        self._kind = kind
        self._is_remade = is_remade
        self._shards = Shards(self.folder, "teacher cache", _SETTING)
        self._seen: dict[Path, tuple[int, ...]] = {}
        self._maps: list[MappedShard] = []
        self._row_of: dict[bytes, tuple[MappedShard, int]] = {}
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
        if not self._is_used and self.folder.is_dir():
            self._is_used = True
            with suppress(OSError, RunError):  # the folder is another's
                self._describe()
                os.utime(self.folder / KIND)
        while not all(list(map(self._read, shard_files(self.folder)))):
            pass  # a file that has gone meanwhile was merged into one that the list may lack

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
            self._discard(shard.path, _MISMATCH)
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
        unverified = set(keys)
        while unverified := unverified & self._row_of.keys():
            rows_of: dict[MappedShard, list[tuple[int, bytes]]] = {}
            for key in unverified:
                shard, index = self._row_of[key]
                rows_of.setdefault(shard, []).append((index, key))
            lost = [shard for shard, rows in rows_of.items() if not self._verified(shard.path, sorted(rows))]
            unverified = {key for shard in lost for _, key in rows_of[shard]}
            if lost:
                self._forget(*lost)
                self.refresh()  # another process may have merged a file into a larger one
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
        self._read(self._write(rows))

    def merge_small(self) -> None:
        """Merge the small files that this object knows into large ones, once there are many: each takes a memory map.

        Every record is on disk at each moment, and whoever has mapped a small file goes on reading it. Records with
        the same key are written once, and damaged files are removed as in ``get``. Where there is no room, the small
        files stay.
        """
        small = [shard for shard in self._maps if shard.num_bytes < _MERGED_BYTES // 2]
        if len(small) > _MOST_SMALL:
            with suppress(RunError):
                for group in _groups(small):
                    self._merge(group)

    def _merge(self, group: Sequence[MappedShard]) -> None:
        rows = self._rows_in_use(group)
        group = [shard for shard in group if shard in self._maps]  # without damaged ones
        if rows:
            path = self._write(rows)
            with suppress(OSError):  # as old as its records: of those with the same key the first is used
                os.utime(path, ns=(group[0].path.stat().st_mtime_ns,) * 2)
            self._seen[path] = _status(path) or ()
            if (merged := self._mapped(path)) is not None:
                self._maps.insert(self._maps.index(group[0]), merged)
        with suppress(OSError):
            bring_to_disk(self.folder, inside=False)  # the new name, before the old ones go
            for shard in group:
                if not rows or shard.path != path:  # of files with the same records, one has the merged one's content
                    shard.path.unlink(missing_ok=True)
        self._forget(*group)

    def _rows_in_use(self, shards: Sequence[MappedShard]) -> list[tuple[bytes, memoryview]]:
        """Keys and data of the records that are read from some files; damaged files are removed."""
        rows: list[tuple[bytes, memoryview]] = []
        for shard in shards:
            used = [(index, key) for index, key in enumerate(shard.keys()) if self._row_of[key] == (shard, index)]
            intact = [(key, data) for index, key in used if (data := shard.data(index, key)) is not None]
            if len(intact) == len(used):
                rows += intact
            else:
                self._discard(shard.path, _MISMATCH)
                self._forget(shard)
        return rows

    def _write(self, rows: Sequence[tuple[bytes, bytes | memoryview]]) -> Path:
        keys, data = zip(*rows, strict=True)
        columns = {"key": keys, "data": data, "crc": [checksum(*row) for row in rows]}
        return self._shards.add(pa.table(columns, schema=SCHEMA))

    def _describe(self) -> None:
        description = dict(self._kind.description)
        with suppress(OSError, ValueError):
            if read_json(self.folder / KIND) == description:
                return
        with writing_to(self.folder, f"make room, or set {_SETTING}"):
            write_json(self.folder / KIND, description)

    def _read(self, path: Path) -> bool:
        """Read the keys of a file, unless that is done; return whether the file is still there."""
        status = _status(path)
        if status is None or self._seen.get(path) == status:
            return status is not None
        self._seen[path] = status
        if (shard := self._mapped(path)) is not None:
            self._maps.append(shard)
            self._add_keys(shard)
        return path.exists()

    def _forget(self, *shards: MappedShard) -> None:
        self._maps = [shard for shard in self._maps if shard not in shards]
        self._row_of = {}
        for intact in self._maps:
            self._add_keys(intact)

    def _add_keys(self, shard: MappedShard) -> None:
        for index, key in enumerate(shard.keys()):
            self._row_of.setdefault(key, (shard, index))

    def _mapped(self, path: Path) -> MappedShard | None:
        """Map a file; None, with a warning, where that fails."""
        try:
            return map_shard(path)
        except ValueError as error:
            self._discard(path, str(error))
        except FileNotFoundError:  # another process found it damaged
            pass
        except OSError as error:  # the file may be intact all the same
            _log.warning("teacher cache: %s cannot be read and is left out (%s)", path, error)
        return None

    def _verified(self, path: Path, rows: Sequence[tuple[int, bytes]]) -> bool:
        """Whether records of a file are intact, by a map of its own, whose memory is given back at the end."""
        shard = self._mapped(path)
        if shard is None:
            return False
        if all(index < len(shard) and shard.data(index, key) is not None for index, key in rows):
            return True
        self._discard(path, _MISMATCH)
        return False

    def _discard(self, path: Path, problem: str) -> None:
        if not self._is_remade:
            _log.warning("teacher cache: %s is damaged, and its records are left out (%s)", path, problem)
            return
        _log.warning("teacher cache: %s is damaged, and its records are computed anew (%s)", path, problem)
        with suppress(OSError):
            path.unlink()


def _groups(shards: Sequence[MappedShard]) -> Iterator[list[MappedShard]]:
    """Two files or more each, which together are no larger than a merged one may be."""
    group: list[MappedShard] = []
    for shard in shards:
        if sum(member.num_bytes for member in (*group, shard)) > _MERGED_BYTES:
            yield group
            group = []
        group.append(shard)
    if len(group) > 1:
        yield group


def _status(path: Path) -> tuple[int, ...] | None:
    """Size and what else differs when a file is replaced by another of its name; None for one that has gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino
