"""Atomic writes, and digests of what was written.

Files are written under a temporary name, brought to the disk and renamed, so readers never see a part of the content.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mta_framework.errors import RunError, refusal

if TYPE_CHECKING:
    import pyarrow as pa

_log = logging.getLogger(__name__)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name, then rename it; missing folders are made.

    Args:
        path: File to write or replace.
        content: Bytes, or text, which is encoded as UTF-8.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        bring_to_disk(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def bring_to_disk(path: Path, inside: bool = True) -> None:
    """Wait until a file, or a folder with all that it holds, would survive a loss of power.

    A rename can reach the disk before the content that it publishes: whoever renames calls this first.

    Args:
        path: File or folder.
        inside: Whether the content of a folder is included, and not only its list of entries.
    """
    inner = [*path.rglob("*")] if inside and path.is_dir() else []
    for entry in (*inner, path):
        if os.name != "posix" and entry.is_dir():  # Windows opens no folders
            continue
        descriptor = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def file_digest(path: Path) -> str:
    """Compute the SHA-256 of a file's content; one of a large file is remembered until the file changes.

    Args:
        path: File to read.
    """
    status = path.stat()
    if status.st_size < _LARGE:
        return _read_digest(path)
    key = str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino
    return _large_file_digest(*key)


_LARGE = 2**24
"""Bytes from which on a digest is remembered: smaller files are read again each time, in milliseconds."""


@functools.cache
def _large_file_digest(path: str, size: int, changed_ns: int, inode: int) -> str:
    return _read_digest(Path(path))


def _read_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


MANIFEST = "files.json"
"""Name of the manifest of a folder: names of files that lie there -> size in bytes, and digest."""

_MANIFEST_KEYS = {"bytes": int, "sha256": str}


def inner_files(folder: Path) -> dict[str, Path]:
    """Return the files inside of a folder, except its manifest, by their names relative to it."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / MANIFEST)
    return {path.relative_to(folder).as_posix(): path for path in files}


def write_manifest(folder: Path, files: Mapping[str, Path]) -> None:
    """Write the manifest of a folder, with sizes and digests by which damage is noticed when the files are used again.

    Args:
        folder: Folder of the files.
        files: Name relative to ``folder``, with ``/`` -> the file, where it lies now.
    """
    (folder / MANIFEST).unlink(missing_ok=True)
    write_json(folder / MANIFEST, {name: _entry(path) for name, path in files.items()})


def add_to_manifest(folder: Path, name: str) -> None:
    """Note the present content of a file in the manifest of its folder; other entries stay as they are.

    Args:
        folder: Folder with a manifest or, up to now, without one.
        name: Name of the file relative to ``folder``.
    """
    try:
        entries = _read_manifest(folder) if (folder / MANIFEST).exists() else {}
    except (OSError, ValueError):  # whoever reads it reports the damage
        return
    write_json(folder / MANIFEST, entries | {name: _entry(folder / name)})


def damaged_files(folder: Path, names: tuple[str, ...] = ("",), contents: bool = True) -> Iterator[tuple[str, str]]:
    """Yield the name of each file that is not as the manifest has it, and the problem as part of a sentence.

    Args:
        folder: Folder with a manifest; one that is missing or damaged is the only problem.
        names: Names of the files that are checked, or their beginnings.
        contents: Whether contents are read, and not only sizes.
    """
    try:
        entries = _read_manifest(folder)
    except FileNotFoundError:
        yield MANIFEST, "is missing"
        return
    except (OSError, ValueError) as error:
        yield MANIFEST, f"cannot be read ({error})"
        return
    intact = []
    for name in (name for name in entries if name.startswith(names)):
        if problem := _size_problem(folder / name, entries[name]["bytes"]):
            yield name, problem
        else:
            intact.append(name)
    for name in intact if contents else ():
        if problem := _content_problem(folder / name, entries[name]["sha256"]):
            yield name, problem


def is_listed(folder: Path, name: str) -> bool:
    """Whether the manifest of a folder has an entry for a file.

    Args:
        folder: Folder with a sound manifest, or with none.
        name: Name of the file relative to ``folder``.
    """
    return (folder / MANIFEST).is_file() and name in _read_manifest(folder)


def _entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_digest(path)}


def _size_problem(path: Path, size: int) -> str | None:
    if not path.is_file():
        return "is missing"
    actual = path.stat().st_size
    return f"has {actual:,} bytes instead of {size:,}" if actual != size else None


def _content_problem(path: Path, expected: str) -> str | None:
    try:
        return "has another content than was written" if file_digest(path) != expected else None
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Entries by name of the file.

    Raises:
        OSError: There is no manifest, or it cannot be read.
        ValueError: It holds something else.
    """
    try:
        entries: dict[str, dict[str, Any]] = read_json(folder / MANIFEST)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(entries, dict):
        raise ValueError(f"a {type(entries).__name__} in place of an object")
    for name, entry in entries.items():
        if not _is_inside(name):
            raise ValueError(f"{name!r} is no file in this folder")
        if not isinstance(entry, dict) or {key: type(entry.get(key)) for key in _MANIFEST_KEYS} != _MANIFEST_KEYS:
            raise ValueError(f"no size and digest of {name}")
    return entries


def _is_inside(name: str) -> bool:
    """Whether a name with ``/`` stays in its folder, on every system; a manifest may be somebody else's."""
    return not any(part in ("", ".", "..") or set(part) & set("\\:\0") for part in name.split("/"))


class Shards:
    """The Arrow files of a cache folder: immutable, named after the digest of their content.

    Several processes may read and write them at once.

    Args:
        folder: Folder of the files, made when it is first used.
        cache: Name of the cache in messages.
        setting: Settings that determine the folder, for messages.
    """

    def __init__(self, folder: Path, cache: str, setting: str):
        self._folder = folder
        self._cache = cache
        self._setting = setting
        self._seen: set[Path] = set()
        self._cleaned = False

    def read_new(self) -> Iterator[pa.Table]:
        """Read the tables that this object has neither read nor written yet.

        They are mapped into memory. A damaged file is removed, with a warning.

        Yields:
            Tables, oldest first.

        Raises:
            RunError: The folder cannot be created.
        """
        with self._writing("create"):
            self._folder.mkdir(parents=True, exist_ok=True)
        for path in shard_files(self._folder):
            if path not in self._seen and (table := self._read(path)) is not None:
                self._seen.add(path)
                yield table

    def add(self, table: pa.Table) -> Path:
        """Write a table as a new file, complete or not at all.

        Returns:
            The file.

        Raises:
            RunError: The folder cannot be created or written to.
        """
        with self._writing("create"):
            self._folder.mkdir(parents=True, exist_ok=True)
        with self._writing("write to"):
            if not self._cleaned:
                for leftover in leftovers(self._folder):
                    leftover.unlink(missing_ok=True)
                self._cleaned = True
            path = _write_shard(self._folder, table)
        self._seen.add(path)
        return path

    @contextmanager
    def _writing(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            problem = f"cannot {doing} {self._folder} ({refusal(error, self._folder)})"
            raise RunError(f"{self._cache}: {problem}; make room, or set {self._setting}") from error

    def _read(self, path: Path) -> pa.Table | None:
        import pyarrow as pa  # slow to import, and not needed to write JSON

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
        except OSError as error:  # the file may be intact all the same
            _log.warning("%s: %s cannot be read and is left out (%s)", self._cache, path, error)
        return None


def shard_files(folder: Path) -> list[Path]:
    """Return the Arrow files of a cache folder, oldest first; none where there is no folder."""
    return sorted((path for path in folder.glob("*.arrow") if path.is_file()), key=_age)


ABANDONED_SECONDS = 3600.0
"""Age from which on a temporary file counts as left by a process that was killed: writing one takes seconds."""


def leftovers(folder: Path) -> list[Path]:
    """Return the temporary files of a cache folder that a process which was killed has left."""
    return [path for path in folder.glob(".*.part") if time.time() - _age(path)[0] / 1e9 > ABANDONED_SECONDS]


def _write_shard(folder: Path, table: pa.Table) -> Path:
    import pyarrow as pa

    temporary = folder / f".{uuid.uuid4().hex}.part"
    try:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        with pa.memory_map(str(temporary)) as source:
            path = folder / f"{_digest(source)}.arrow"
        bring_to_disk(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _age(path: Path) -> tuple[int, str]:
    try:
        return path.stat().st_mtime_ns, path.name
    except OSError:
        return 0, path.name


def _digest(source: pa.NativeFile) -> str:
    source.seek(0)
    return hashlib.sha256(source.read_buffer()).hexdigest()


def json_digest(value: Any) -> str:
    """Compute the SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented standard JSON, complete or not at all.

    Raises:
        ValueError: A number is NaN or infinite, which JSON does not have.
    """
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
