"""Reads the rows of a file, one after the other: JSON Lines or a JSON array, also under gzip, or Parquet.

JSON is not read by ``datasets``: that holds a whole array in memory, keeps the last of two values of one key, turns
texts that look like dates into dates and whole numbers into floats, and names no row in its errors. Nor is Parquet: it
refuses files without rows and columns of some types, and takes some paths for addresses.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from mta_framework.data.rows import RowError, decode_row, scan_row
from mta_framework.errors import Fault, InputError, error_message, first_line
from mta_framework.spec.data import ROWS_EXPECTED

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, IterableDataset

MAX_ROW_BYTES = 2**25
"""Longest row that is read, in bytes or, in an array, characters: far beyond what any model reads at once."""

_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_CHUNK = 2**20
_BATCH = 64
"""Rows of Parquet that are decoded at a time."""

_BLANKS = re.compile(r"[ \t\r\n]*")


def file_rows(path: Path, where: str) -> Iterator[tuple[str, object]]:
    """Read a data file by its content, whatever its name; only one row is held in memory at a time.

    Args:
        path: The file.
        where: Field of the spec that names it, for errors.

    Yields:
        Location of each row (``FILE:LINE``, or ``FILE row N`` in arrays and Parquet), and the decoded row, or a
        ``RowError`` for one that cannot be decoded.

    Raises:
        InputError: The path is no regular file, or the file cannot be read.
    """
    try:
        if not path.is_file() and path.exists():  # a pipe or a device may never end
            raise InputError([Fault(where, f"is not a regular file (got {path})", ROWS_EXPECTED, "Check the path.")])
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            if start == _PARQUET:
                yield from _parquet_rows(file, path, where)
            elif start.startswith(_GZIP):
                with gzip.open(file) as unpacked:
                    yield from _json_rows(cast(IO[bytes], unpacked), path, where)
            else:
                yield from _json_rows(file, path, where)
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error_message(error)
        raise InputError([Fault(where, f"cannot read {path} ({reason})", ROWS_EXPECTED, "Check the file.")]) from error


def _json_rows(file: IO[bytes], path: Path, where: str) -> Iterator[tuple[str, object]]:
    start = file.read(_CHUNK).removeprefix(codecs.BOM_UTF8).lstrip()
    file.seek(0)
    if start.startswith(b"{") and _goes_on_behind_its_line(start, file):
        problem = f"begins with a JSON object over several lines (got {path})"
        hint = "Write every row in one line (jq -c does), or put all rows into one array."
        raise InputError([Fault(where, problem, "one JSON object per line, or a JSON array of objects", hint)])
    return _array_rows(file, path) if start.startswith(b"[") else _line_rows(file, path)


def _goes_on_behind_its_line(start: bytes, file: IO[bytes]) -> bool:
    """Whether the object at the start of a file is whole only together with further lines."""
    line, newline, _ = start.partition(b"\n")
    if not newline:
        return False
    try:
        json.JSONDecoder().raw_decode(line.decode("utf-8"))
        return False
    except (ValueError, RecursionError):
        pass
    reader = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        return isinstance(_Window(reader).row(), Mapping | RowError)
    except (RowError, UnicodeDecodeError):
        return line.strip() == b"{"
    finally:
        reader.detach()
        file.seek(0)


def _line_rows(file: IO[bytes], path: Path) -> Iterator[tuple[str, object]]:
    index = 0
    while line := file.readline(MAX_ROW_BYTES + 1):
        index += 1
        row = line.removeprefix(codecs.BOM_UTF8) if index == 1 else line
        if len(line) > MAX_ROW_BYTES:
            yield f"{path}:{index}", _too_large()
            while line and not line.endswith(b"\n"):
                line = file.readline(_CHUNK)
        elif row.strip():
            try:
                yield f"{path}:{index}", decode_row(row)
            except RowError as error:
                yield f"{path}:{index}", error


def _array_rows(file: IO[bytes], path: Path) -> Iterator[tuple[str, object]]:
    text = _Window(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
    index = 0
    try:
        text.skip("[")
        while not text.at("]"):
            if index:
                text.skip(",")
            index += 1
            yield f"{path} row {index}", text.row()
        text.skip("]")
        text.skip("")
    except UnicodeDecodeError as error:
        yield f"{path} row {index}", RowError(f"the row is not UTF-8 (got {error.reason})", "JSON in UTF-8")
    except RowError as error:  # where the array goes on cannot be known
        yield f"{path} row {index}", error


class _Window:
    """The part of a JSON text that is looked at: a row, and what was read together with it."""

    def __init__(self, reader: io.TextIOWrapper):
        self._reader = reader
        self._text = ""
        self._position = 0
        self._ended = False

    def at(self, mark: str) -> bool:
        """Whether ``mark`` comes next, behind blanks; the empty mark stands for the end."""
        self._position = self._behind_blanks()
        while self._position == len(self._text) and not self._ended:
            self._read(_CHUNK)
            self._position = self._behind_blanks()
        return self._text.startswith(mark, self._position) if mark else self._position == len(self._text)

    def skip(self, mark: str) -> None:
        """Go on behind ``mark``.

        Raises:
            RowError: Something else comes next.
        """
        if not self.at(mark):
            rest = self._text[self._position : self._position + 20]
            problem = f"the array is not JSON, or cut off, behind this row (got {rest!r})"
            raise RowError(problem, "one whole JSON array of objects")
        self._position += len(mark)

    def row(self) -> object:
        """Decode the next row; a ``RowError`` stands for one that is whole and cannot be used.

        Raises:
            RowError: The text is no JSON here, or the row is too large.
        """
        self.at("")
        while True:
            try:
                row, end = scan_row(self._text, self._position)
            except RowError:
                if self._ended:
                    raise
                length = len(self._text) - self._position
                if length > MAX_ROW_BYTES:
                    raise _too_large() from None
                self._read(max(_CHUNK, length))  # as much again, so that a long row is not scanned for ever
                continue
            length, self._position = end - self._position, end
            return _too_large() if length > MAX_ROW_BYTES else row

    def _behind_blanks(self) -> int:
        blanks = _BLANKS.match(self._text, self._position)
        return blanks.end() if blanks else self._position

    def _read(self, size: int) -> None:
        part = self._reader.read(size)
        self._text, self._position = self._text[self._position :] + part, 0
        self._ended = not part


def _parquet_rows(file: IO[bytes], path: Path, where: str) -> Iterator[tuple[str, object]]:
    from pyarrow.parquet import ParquetFile

    index = 0
    try:
        table = ParquetFile(file)
        columns = table.schema_arrow
        if twice := [name for name in columns.names if columns.names.count(name) > 1]:
            raise ValueError(f"the column {twice[0]!r} stands twice")
        groups = range(table.num_row_groups)  # each by itself: read in one go, all that was read stays in memory
        for batch in chain.from_iterable(table.iter_batches(_BATCH, row_groups=[group]) for group in groups):
            for row in batch.to_pylist(maps_as_pydicts="strict"):
                index += 1
                row = {key: _as_written(value, columns.field(key).type) for key, value in row.items()}
                size = sum(len(value) for value in row.values() if isinstance(value, str))
                yield f"{path} row {index}", _too_large() if size > MAX_ROW_BYTES else row
    except Exception as error:  # arrow raises a dozen unrelated ones
        reason = first_line(error)
        raise InputError([Fault(where, f"cannot read {path} ({reason})", "sound Parquet", "Repair it.")]) from error


def _as_written(value: Any, kind: pa.DataType) -> Any:
    """A value of a Parquet column without the nulls that its type fills objects with, see ``table_rows``."""
    import pyarrow as pa

    if value is None:
        return None
    if isinstance(kind, pa.JsonType):
        return json.loads(value)
    if isinstance(kind, pa.StructType):
        return {key: _as_written(entry, kind.field(key).type) for key, entry in value.items() if entry is not None}
    if isinstance(kind, pa.MapType):
        return {key: _as_written(entry, kind.item_type) for key, entry in value.items()}
    return [_as_written(entry, kind.value_type) for entry in value] if pa.types.is_nested(kind) else value


def table_rows(table: Dataset | IterableDataset) -> Iterator[dict[str, Any]]:
    """Iterate over the rows of a table without the nulls that it fills objects with.

    The objects of a column have the keys of all rows, and null where a row has none. Columns of type ``Json`` keep the
    keys of each row, and the nulls in them are the row's.

    Args:
        table: A table of ``datasets``.
    """
    for row in table:
        yield {key: _without_nulls(value, (table.features or {}).get(key)) for key, value in row.items()}


def _without_nulls(value: Any, feature: Any) -> Any:
    """A value of a column without the keys of objects that are null, as far as its type has fixed keys."""
    if isinstance(value, dict) and isinstance(feature, dict):
        return {key: _without_nulls(entry, feature.get(key)) for key, entry in value.items() if entry is not None}
    if isinstance(value, list) and hasattr(feature, "feature"):
        return [_without_nulls(entry, feature.feature) for entry in value]
    return value


def _too_large() -> RowError:
    return RowError(f"the row has more than {MAX_ROW_BYTES:,} bytes", "rows that a model can read")
