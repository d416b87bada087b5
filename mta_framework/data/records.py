"""Reads data sets from files and from the hub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

from mta_framework.data.row_files import file_rows, table_rows
from mta_framework.data.row_teachers import RowTeachers
from mta_framework.data.rows import Record, RowError, parse_row, renamed, unused_keys
from mta_framework.errors import MAX_LISTED, Fault, FaultList, InputError, first_line
from mta_framework.spec.data import DatasetSection


class Records(list[Record]):
    """The rows of a data set.

    Attributes:
        unused: Keys that are not used -> number of rows in which they hold something.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unused = Counter[str]()


def read_records(section: DatasetSection, where: str, teachers: RowTeachers | None = None) -> Records:
    """Read a data set.

    All rows have the same keys: ``instruction``, ``output`` and optionally ``input``; or ``prompt`` and ``completion``;
    or ``messages``, after ``rename_columns``. ``output`` and ``completion`` may list several references. Files are JSON
    Lines or a JSON array in UTF-8, also under gzip, or Parquet; a byte order mark, Windows line ends and blank lines
    are accepted. With ``limit``, no row after the last used one is read.

    Args:
        section: Section of the spec that names the data set.
        where: Field of the spec that holds the section, e.g. ``data.train``, for errors.
        teachers: Reads which of several teachers a row names; None: rows name none.

    Returns:
        The rows in their order, at least one.

    Raises:
        InputError: The data set cannot be opened, has no rows, or has faulty rows, all of which are reported.
    """
    if section.path is not None:
        rows = islice(file_rows(Path(section.path), where), section.limit)
        return _records(rows, where, section.path, teachers, section.rename_columns or {})
    source = f"{section.hub} ({section.split})"
    return _records(_hub_rows(section, where), where, source, teachers, section.rename_columns or {})


def _records(
    rows: Iterable[tuple[str, object]],
    where: str,
    source: str,
    teachers: RowTeachers | None,
    new_names: Mapping[str, str],
) -> Records:
    records, not_seen = Records(), dict.fromkeys(new_names)
    faults = FaultList(where=where, most=MAX_LISTED)
    first_kind = first_location = None
    empty = True
    for location, row in rows:
        empty = False
        try:
            if isinstance(row, RowError):
                raise row
            if new_names and isinstance(row, Mapping):
                for key in not_seen.keys() & row.keys():
                    del not_seen[key]
                row = renamed(row, new_names)
            kind, record = parse_row(row)
            if first_kind is None:
                first_kind, first_location = kind, location
            if kind != first_kind:
                expected = "the same keys in all rows"
                raise RowError(f"the row has {kind}, unlike {first_location} ({first_kind})", expected)
            keys = cast(Mapping[str, Any], row)
            name = "" if teachers is None else teachers.name_of(keys)
            records.append(replace(record, where=f"{where}: {location}", teacher_name=name))
            records.unused.update(key for key in unused_keys(keys) if teachers is None or key != teachers.key)
        except RowError as error:
            faults.add(Fault(f"{where}: {location}", error.problem, error.expected, error.hint))
    if empty:
        faults.add(Fault(where, f"there are no rows in {source}", "at least one row", "Check the source."))
    elif not_seen:
        hint = f"Name keys as the rows have them; {where} without rename_columns reads them as they are."
        problem = f"names keys that no row has (got {', '.join(not_seen)})"
        faults.append(Fault(f"{where}.rename_columns", problem, "keys of the rows", hint))
    faults.raise_any()
    return records


def hub_fingerprint(section: DatasetSection) -> str | None:
    """Return the fingerprint that ``datasets`` gives to a data set of the hub; None where it cannot be loaded.

    Args:
        section: Section of the spec that names the data set by ``hub``.
    """
    import datasets

    try:
        loaded = datasets.load_dataset(section.hub, split=section.split, revision=section.revision)
    except Exception:  # whoever reads its rows reports the cause
        return None
    return getattr(loaded, "_fingerprint", None)


def _hub_rows(section: DatasetSection, where: str) -> Iterator[tuple[str, object]]:
    import datasets

    assert section.hub is not None
    try:
        loaded = datasets.load_dataset(section.hub, split=section.split, revision=section.revision)
    except Exception as error:  # hub, network and data set faults come as errors of a dozen unrelated classes
        reason = first_line(error)
        problem = f"cannot load split {section.split!r} of {section.hub!r} from the hub ({reason})"
        hint = "Check the id, the split, the revision and the network, or download the set and give its path."
        raise InputError([Fault(where, problem, "a data set on the Hugging Face hub", hint)]) from error
    for index, row in enumerate(islice(table_rows(loaded), section.limit)):
        yield f"{section.hub} row {index}", row
