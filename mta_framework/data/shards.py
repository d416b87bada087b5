"""Files of the span cache: Arrow, never changed once written, named after the digest of their content."""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mta_framework.data.extraction import SpanArrays

KEY = "sha256"
"""Column that holds the digest of a text; the other columns are granularities, as flat start, end, start, end, ..."""

_log = logging.getLogger(__name__)


class Rows(NamedTuple):
    """Some texts' spans, as views into a file: row r of a granularity is ``values[bounds[r] : bounds[r + 1]]``."""

    keys: list[bytes]
    bounds: dict[str, NDArray[np.int32]]
    values: dict[str, NDArray[np.int32]]

    def spans(self, row: int) -> SpanArrays:
        """The spans of one text."""
        return {
            granularity: values[self.bounds[granularity][row] : self.bounds[granularity][row + 1]].reshape(-1, 2)
            for granularity, values in self.values.items()
        }


def rows_of(table: pa.Table, granularities: Sequence[str]) -> Iterator[Rows]:
    """The rows of a table, without copying spans."""
    for batch in table.to_batches():
        columns = {granularity: batch.column(granularity) for granularity in granularities}
        yield Rows(
            keys=batch.column(KEY).to_pylist(),
            bounds={name: column.offsets.to_numpy() for name, column in columns.items()},
            values={name: column.values.to_numpy() for name, column in columns.items()},
        )


def write_shard(table: pa.Table, folder: Path) -> Path:
    """Write a file to the side and put it in place; processes that write at once do not disturb each other."""
    aside = folder / f".{uuid.uuid4().hex}.part"
    try:
        with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        with pa.memory_map(str(aside)) as source:
            path = folder / f"{_digest(source)}.arrow"
        os.replace(aside, path)
        return path
    finally:
        aside.unlink(missing_ok=True)


def read_shard(path: Path) -> pa.Table | None:
    """A file's table, mapped into memory. A damaged file is removed with a warning, and None."""
    try:
        source = pa.memory_map(str(path))
        if _digest(source) != path.stem:
            raise ValueError("its content is not what was written")
        table: pa.Table = pa.ipc.open_file(source).read_all()
        return table
    except (OSError, ValueError) as error:
        _log.warning("span cache: %s is damaged and left out, its texts are parsed again (%s)", path, error)
        with suppress(OSError):
            path.unlink()
        return None


def _digest(source: pa.NativeFile) -> str:
    source.seek(0)
    return hashlib.sha256(source.read_buffer()).hexdigest()
