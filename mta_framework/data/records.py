"""Reads data sets from JSON Lines files and from the hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from mta_framework.data.rows import Record, RowError, decode_row, parse_row
from mta_framework.errors import MAX_LISTED, Fault, FaultList, InputError, error_message
from mta_framework.spec.data import DatasetSection

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_records(section: DatasetSection, where: str) -> list[Record]:
    """Read a data set.

    All rows have the same keys: ``instruction``, ``output`` and optionally ``input``; or ``prompt`` and
    ``completion``; or ``messages``. ``output`` and ``completion`` may list several references. Files are UTF-8; a byte
    order mark, Windows line ends and blank lines are accepted. With ``limit``, no row after the last used one is read.

    Args:
        section: Section of the spec that names the data set.
        where: Field of the spec that holds the section, e.g. ``data.train``, for errors.

    Returns:
        The rows in their order, at least one.

    Raises:
        InputError: The data set cannot be opened, has no rows, or has faulty rows, all of which are reported.
    """
    if section.path is not None:
        return _records(islice(_file_rows(Path(section.path), where), section.limit), where, section.path)
    return _records(_hub_rows(section, where), where, f"{section.hub} ({section.split})")


def _records(rows: Iterable[tuple[str, object]], where: str, source: str) -> list[Record]:
    records: list[Record] = []
    faults = FaultList(where=where, most=MAX_LISTED)
    first_kind = first_location = None
    empty = True
    for location, row in rows:
        empty = False
        try:
            kind, record = parse_row(decode_row(row) if isinstance(row, bytes) else row)
            if first_kind is None:
                first_kind, first_location = kind, location
            if kind != first_kind:
                expected = "the same keys in all rows"
                raise RowError(f"the row has {kind}, unlike {first_location} ({first_kind})", expected)
            records.append(replace(record, where=f"{where}: {location}"))
        except RowError as error:
            faults.add(Fault(f"{where}: {location}", error.problem, error.expected, "Correct or remove the row."))
    if empty:
        faults.add(Fault(where, f"there are no rows in {source}", "at least one row", "Check the source."))
    faults.raise_any()
    return records


def _file_rows(path: Path, where: str) -> Iterator[tuple[str, bytes]]:
    try:
        with path.open("rb") as file:
            for index, line in enumerate(file, start=1):
                row = line.removeprefix(_BYTE_ORDER_MARK) if index == 1 else line
                if row.strip():
                    yield f"{path}:{index}", row
    except OSError as error:
        problem = f"cannot read {path} ({error.strerror or error})"
        raise InputError([Fault(where, problem, "a JSON Lines file", "Check the path.")]) from error


def _hub_rows(section: DatasetSection, where: str) -> Iterator[tuple[str, object]]:
    import datasets

    assert section.hub is not None
    try:
        loaded = datasets.load_dataset(section.hub, split=section.split, revision=section.revision)
    except Exception as error:  # hub, network and data set faults come as errors of a dozen unrelated classes
        reason = (error_message(error).strip() or type(error).__name__).splitlines()[0]
        problem = f"cannot load split {section.split!r} of {section.hub!r} from the hub ({reason})"
        hint = "Check the id, the split, the revision and the network, or download the set and give its path."
        raise InputError([Fault(where, problem, "a data set on the Hugging Face hub", hint)]) from error
    for index, row in enumerate(islice(loaded, section.limit)):
        yield f"{section.hub} row {index}", row
