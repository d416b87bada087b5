"""What a teacher cache holds: its teachers, their kinds of records, and what is damaged. No torch."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from mta_framework.models.saved_teacher import SavedTeacher
from mta_framework.spec.model_files import (
    RECORDS,
    SAVED_SERVER,
    SAVED_TEACHER,
    is_kept_teacher,
    is_saved_teacher,
    kept_records,
)
from mta_framework.spec.run import RunSpec
from mta_framework.storage import (
    ABANDONED_SECONDS,
    MANIFEST,
    damaged_files,
    file_digest,
    json_digest,
    leftovers,
    read_json,
    shard_files,
)
from mta_framework.teacher_cache.kept_similarity import LAYERS, read_similarity
from mta_framework.teacher_cache.mapped_shard import map_shard
from mta_framework.teacher_cache.record_labels import record_label
from mta_framework.teacher_cache.store import DIGEST_LENGTH, KIND, LOCK


@dataclass(frozen=True)
class KeptRecords:
    """The records of one kind.

    Args:
        folder: Their folder.
        label: What they are, in words; the name of the folder where its description is damaged.
        texts: Number of distinct texts.
        num_bytes: Size on disk.
        last_used: Time of last use, in seconds since 1970.
    """

    folder: Path
    label: str
    texts: int
    num_bytes: int
    last_used: float


@dataclass(frozen=True)
class KeptTeacher:
    """A teacher of a cache.

    Args:
        folder: Its folder.
        name: Hub id, or name of the model folder; the name of ``folder`` where its description is damaged.
        dtype: Dtype of the teacher, or that it is behind a server; empty where it is not known.
        records: Its kinds of records.
        num_bytes: Size on disk of all that is in the folder.
        last_used: Time of last use, in seconds since 1970.
    """

    folder: Path
    name: str
    dtype: str
    records: tuple[KeptRecords, ...]
    num_bytes: int
    last_used: float

    @property
    def is_being_filled(self) -> bool:
        """Whether a process is adding records at the moment."""
        recent = [path for path in self.folder.rglob(".*.part") if time.time() - _changed(path) < ABANDONED_SECONDS]
        lock = self.folder / LOCK
        if recent or not lock.is_file():
            return bool(recent)
        try:
            with FileLock(lock).acquire(blocking=False):
                return False
        except Timeout:
            return True
        except OSError:  # of another user
            return False


def given_teacher(spec: RunSpec) -> Path | None:
    """Return the folder of a teacher without weights that ``teacher.path`` names, or None."""
    section = spec.teacher
    if section is None or section.server is not None or section.path is None:
        return None
    return Path(section.path) if is_saved_teacher(Path(section.path)) else None


def folder_of(spec: RunSpec) -> Path:
    """Return the folder that records are read from: that of ``given_teacher`` where it has some, or the cache."""
    return kept_records(given_teacher(spec)) or spec.teacher_cache


def kept_teachers(cache: Path) -> list[KeptTeacher]:
    """Return the teachers of a cache, by name of their folders; none where there is no such folder.

    Args:
        cache: Folder of the cache, or of one teacher in it.
    """
    return [_teacher(folder) for folder in _teacher_folders(cache)]


def damaged_paths(cache: Path) -> Iterator[tuple[Path, str]]:
    """Check all that a cache holds by its checksums.

    Args:
        cache: Folder of the cache, or of one teacher in it.

    Yields:
        Each file that is damaged, missing or left by a process that was killed, and the problem as part of a sentence.
        The manifest and description of a teacher's folder are among them where any other file is that they stand for.
        Once these are deleted there is nothing left that is damaged, and a run makes anew what it needs of them.
    """
    for folder in _teacher_folders(cache):
        yield from _damaged_parts(folder)
        for file in sorted((folder / LAYERS).glob("*.json")):
            if read_similarity(file) is None:
                yield file, "has another content than was written"
        for records in _record_folders(folder):
            yield from _damaged_records(records)
    abandoned = list(cache.rglob(".*.partial"))
    for folder in _teacher_folders(cache):
        abandoned += [*folder.glob(".*.part"), *folder.glob(f"{LAYERS}/.*.part")]
    for path in abandoned:
        if time.time() - _changed(path) > ABANDONED_SECONDS:
            yield path, "was left by a process that was killed"


def delete(path: Path) -> None:
    """Delete a file or a folder, which disappears at once and as a whole.

    Raises:
        OSError: It cannot be deleted.
    """
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    hidden = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    os.rename(path, hidden)
    shutil.rmtree(hidden)


def _teacher_folders(cache: Path) -> list[Path]:
    """The folders of teachers in a cache, or the folder itself where it is that of one teacher."""
    if is_kept_teacher(cache):
        return [cache]
    return sorted(path for path in cache.glob("*") if not path.name.startswith(".") and is_kept_teacher(path))


def _record_folders(teacher: Path) -> list[Path]:
    folders = (teacher / RECORDS).glob("*")
    return sorted(path for path in folders if path.is_dir() and not path.name.startswith("."))


def _teacher(folder: Path) -> KeptTeacher:
    name, dtype = folder.name, ""
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        name, dtype = str(read_json(folder / SAVED_SERVER)["name"]), "behind a server"
    with suppress(ValidationError, OSError, RecursionError):
        saved = SavedTeacher.model_validate_json((folder / SAVED_TEACHER).read_bytes())
        name, dtype = saved.name, saved.dtype
    records = tuple(map(_records, _record_folders(folder)))
    size = sum(_size(path) for path in folder.rglob("*"))
    described = [_changed(folder / file) for file in (SAVED_TEACHER, SAVED_SERVER)]
    last_used = max([*described, *(kind.last_used for kind in records)])
    return KeptTeacher(folder, name, dtype, records, size, last_used)


def _records(folder: Path) -> KeptRecords:
    texts: set[bytes] = set()
    files = shard_files(folder)
    for path in files:
        with suppress(OSError, ValueError):
            texts.update(map_shard(path).keys())
    last_used = max(map(_changed, [folder / KIND, *files]))
    return KeptRecords(folder, _label(folder), len(texts), sum(map(_size, folder.iterdir())), last_used)


def _label(folder: Path) -> str:
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        description = read_json(folder / KIND)
        label = record_label(description["quantity"], description["layer"], description["granularity"])
        return f"{label}, in 8 bits" if description["bits"] == 8 else label
    return folder.name


def _damaged_parts(folder: Path) -> Iterator[tuple[Path, str]]:
    """What is damaged beside the records; a folder with neither description nor manifest holds records alone."""
    present = [name for name in (SAVED_TEACHER, MANIFEST) if (folder / name).is_file()]
    problems = dict(damaged_files(folder)) if present else {}
    if others := [name for name in problems if not _is_file_of(folder, folder / name)]:
        problems = {MANIFEST: f"names {others[0]!r}, which is no file in this folder"}  # and nothing else is deleted
    if problems:
        problems = {**dict.fromkeys(present, "stands for files that are damaged or missing"), **problems}
    yield from ((folder / name, problem) for name, problem in problems.items())


def _is_file_of(folder: Path, path: Path) -> bool:
    """Whether a path is that of a file in a folder, present or not, and leads nowhere else by a link."""
    return not path.is_dir() and folder.resolve() in path.resolve().parents


def _damaged_records(folder: Path) -> Iterator[tuple[Path, str]]:
    if (folder / KIND).is_file() and _description_digest(folder / KIND) != folder.name[-DIGEST_LENGTH:]:
        yield folder / KIND, "does not describe the records beside it"
    for path in shard_files(folder):
        try:
            if file_digest(path) != path.stem:
                yield path, "has another content than was written"
        except FileNotFoundError:  # another process found it damaged
            continue
        except OSError as error:
            yield path, f"cannot be read ({error.strerror})"
    for path in leftovers(folder):
        yield path, "was left by a process that was killed"


def _description_digest(file: Path) -> str | None:
    with suppress(OSError, ValueError, RecursionError):
        return json_digest(read_json(file))[:DIGEST_LENGTH]
    return None


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size if path.is_file() else 0
    return 0


def _changed(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0
