"""A file of records that is mapped into memory: keys, data and a checksum per record."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

KEY_BYTES = 32
RECORD_OVERHEAD = KEY_BYTES + 8 + 4
"""Bytes of a record on disk besides its values: key, offset and checksum."""

SCHEMA = pa.schema({"key": pa.binary(KEY_BYTES), "data": pa.large_binary(), "crc": pa.uint32()})


@dataclass(frozen=True, eq=False)
class MappedShard:
    """A mapped file: the data of record r is ``buffer[bounds[r] : bounds[r + 1]]``."""

    path: Path
    key_buffer: memoryview
    bounds: memoryview
    buffer: memoryview
    checksums: memoryview

    def __len__(self) -> int:
        return len(self.checksums)

    @property
    def num_bytes(self) -> int:
        """Bytes of the records on disk."""
        return len(self.buffer) + RECORD_OVERHEAD * len(self)

    def keys(self) -> Iterator[bytes]:
        """The keys, row by row."""
        content = bytes(self.key_buffer)
        return (content[start : start + KEY_BYTES] for start in range(0, len(self) * KEY_BYTES, KEY_BYTES))

    def data(self, index: int, key: bytes) -> memoryview | None:
        """The data of a record; None where it does not fit the checksum of key and data."""
        data = self.buffer[self.bounds[index] : self.bounds[index + 1]]
        return data if checksum(key, data) == self.checksums[index] else None


def map_shard(path: Path) -> MappedShard:
    """Map a file of records into memory; of its content only the bounds of the records are read.

    Raises:
        ValueError: It is no complete file of records.
        OSError: The system cannot read it.
    """
    try:
        # A map outlives its file, so that files in any number can be mapped.
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            if not reader.schema.equals(SCHEMA) or reader.num_record_batches != 1:
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
    return MappedShard(
        path,
        memoryview(keys)[: rows * KEY_BYTES],
        memoryview(bounds)[: 8 * (rows + 1)].cast("q"),
        memoryview(data if data is not None else b"").cast("B"),
        memoryview(checksums)[: 4 * rows].cast("I"),
    )


def checksum(key: bytes, data: bytes | memoryview) -> int:
    """Compute the checksum of a record, over its key and data."""
    return zlib.crc32(data, zlib.crc32(key))
