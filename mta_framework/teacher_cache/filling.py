"""Fills a teacher cache: runs the teacher on the texts of which anything is missing, and writes their records."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from mta_framework.distributed import processes, shard
from mta_framework.models.teacher_states import Teacher
from mta_framework.teacher_cache.kinds import RecordedRun, RecordKind
from mta_framework.teacher_cache.reader import RecordReader
from mta_framework.teacher_cache.recording import Recorder
from mta_framework.teacher_cache.store import LOCK, RecordStore
from mta_framework.types import Batch, Example

_BATCH_TOKENS = 8192
"""Most tokens of a batch, padding included."""

_FLUSH_BYTES, _FLUSH_SECONDS = 64 * 2**20, 20.0
"""Records are written when there are so many, or after so long: what an interruption costs at most."""


@dataclass(frozen=True)
class WantedRecords:
    """Texts, and the kinds of records that are read of each of them.

    Args:
        texts: The texts; they may repeat.
        kinds: Kinds of records.
    """

    texts: Sequence[Example]
    kinds: tuple[RecordKind, ...]


@contextmanager
def filling_lock(folder: Path) -> Iterator[None]:
    """Let one run at a time fill the cache of a teacher: those that wait find the records of the first.

    A folder that cannot be written to is not locked, nor one whose file system has no locks: two runs that fill it at
    once do the same work twice, and nothing worse.

    Args:
        folder: Folder of the teacher.
    """
    lock = FileLock(folder / LOCK)
    if processes().is_main_process:
        with suppress(OSError, RuntimeError):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                print(f"Waiting for another run that fills the teacher cache {folder}")
                lock.acquire()
    try:
        yield
    finally:
        lock.release()


class TeacherCache:
    """What is kept of one teacher, as far as one run reads it.

    Args:
        folder: Folder of the teacher.
        run: The parts of the run that decide what is kept.
        wanted: The texts of the run.
        is_remade: Whether what is damaged can be computed anew, and is deleted.
    """

    def __init__(self, folder: Path, run: RecordedRun, wanted: Sequence[WantedRecords], is_remade: bool = True):
        self.folder = folder
        self.run = run
        self._recorder = Recorder(run)
        self._wanted = wanted
        kinds = dict.fromkeys(kind for part in wanted for kind in part.kinds)
        self._stores = {kind: RecordStore(folder, kind, is_remade) for kind in kinds}

    def reader(self, for_report: bool = False) -> RecordReader:
        """Make the reader of a batch's records.

        Args:
            for_report: Whether span vectors are read, too, which are kept of the texts of the report alone.
        """
        kinds = [*self.run.kinds(), *(self.run.reported_kinds() if for_report else ())]
        return RecordReader({kind: self._stores[kind] for kind in kinds})

    def refresh(self) -> None:
        """Take up what other processes have written."""
        for store in self._stores.values():
            store.refresh()

    def missing(self, verify: bool) -> list[tuple[Example, tuple[RecordKind, ...]]]:
        """List the texts of which a record is missing, each with the kinds that are.

        Args:
            verify: Whether every record is read, and counts as missing where it does not fit its checksum.
        """
        kinds_of: dict[int, tuple[Example, list[RecordKind]]] = {}
        for kind, text in self._absent(verify):
            kinds_of.setdefault(id(text), (text, []))[1].append(kind)
        return [(text, tuple(kinds)) for text, kinds in kinds_of.values()]

    def kept_text(self, missing: Sequence[Example]) -> Example | None:
        """The first text of the run of which nothing is missing; None where there is none.

        Args:
            missing: Texts of which anything is.
        """
        absent = {id(text) for text in missing}
        texts = (text for (kind, texts) in self.wanted.items() for text in texts if kind.num_rows(text))
        return next((text for text in texts if id(text) not in absent), None)

    @cached_property
    def wanted(self) -> dict[RecordKind, list[Example]]:
        """The texts of each kind of records, each once."""
        return {kind: list(texts.values()) for kind, texts in self._text_of.items()}

    @cached_property
    def _text_of(self) -> dict[RecordKind, dict[bytes, Example]]:
        text_of: dict[RecordKind, dict[bytes, Example]] = {kind: {} for kind in self._stores}
        for part in self._wanted:
            for kind in part.kinds:
                for text in part.texts:
                    text_of[kind].setdefault(kind.key(text), text)
        return text_of

    def _absent(self, verify: bool) -> Iterator[tuple[RecordKind, Example]]:
        self.refresh()
        for kind, store in self._stores.items():
            text_of = self._text_of[kind]
            present = store.intact(list(text_of)) if verify else [key in store for key in text_of]
            yield from ((kind, text) for text, there in zip(text_of.values(), present, strict=True) if not there)

    def fill(
        self,
        missing: Sequence[tuple[Example, tuple[RecordKind, ...]]],
        teacher: Teacher,
        collate: Callable[[Sequence[Example]], Batch],
        label: str = "Teacher",
    ) -> None:
        """Make what is missing, shared among all processes. An interruption loses a few seconds of work.

        Args:
            missing: What ``missing`` returned, the same on all processes.
            teacher: The teacher; its live model is loaded only if anything is missing.
            collate: Makes a batch of texts.
            label: Name of the teacher beside the progress bar.

        Raises:
            RunError: The importance estimator failed, or the cache cannot be written to.
        """
        batches, world_size = _batches(missing), processes().num_processes
        hidden = not missing or not processes().is_main_process
        with (
            tqdm(total=len(missing), desc=label, unit="text", disable=hidden) as bar,
            _Writer(self._stores) as writer,
        ):
            for turn, positions in enumerate(shard(batches)):
                texts, kinds = [missing[position][0] for position in positions], missing[positions[0]][1]
                batch = collate(texts).to(processes().device)
                states = teacher.states(batch, self._recorder.layers)
                writer.add(texts, kinds, self._recorder.records(states, batch, texts, kinds))
                # One batch of each process: the main one, whose bar is shown, has never fewer than the others.
                bar.update(sum(map(len, batches[turn * world_size : (turn + 1) * world_size])))
        processes().wait_for_everyone()
        if processes().is_main_process:
            self.refresh()
            for store in self._stores.values():
                store.merge_small()
        processes().wait_for_everyone()
        self.refresh()


def _batches(missing: Sequence[tuple[Example, tuple[RecordKind, ...]]]) -> list[list[int]]:
    """Batches as positions in the list: texts of similar length of which the same is missing."""
    groups: list[list[int]] = []
    by_kinds: dict[tuple[RecordKind, ...], list[int]] = defaultdict(list)
    for position, (_, kinds) in enumerate(missing):
        by_kinds[kinds].append(position)
    for positions in by_kinds.values():
        length = {position: _length(missing[position][0]) for position in positions}
        batch: list[int] = []
        for position in sorted(positions, key=lambda position: -length[position]):
            if batch and (len(batch) + 1) * length[batch[0]] > _BATCH_TOKENS:
                groups.append(batch)
                batch = []
            batch.append(position)
        groups.append(batch)
    return groups


def _length(text: Example) -> int:
    return len((text.teacher or text).input_ids)


class _Writer:
    """Collects records and writes them now and then; what is left is written at the end, whatever ends it.

    A file has whole batches. So what an interruption leaves to be made is made in the batches of an undisturbed
    filling, to the same bits.
    """

    def __init__(self, stores: dict[RecordKind, RecordStore]):
        self._stores = stores
        self._rows: dict[RecordKind, list[tuple[bytes, bytes]]] = defaultdict(list)
        self._bytes = 0
        self._since = time.monotonic()

    def add(self, texts: Sequence[Example], kinds: Sequence[RecordKind], records: Sequence[Sequence[bytes]]) -> None:
        for kind, of_kind in zip(kinds, zip(*records, strict=True), strict=True):
            self._rows[kind] += [(kind.key(text), record) for text, record in zip(texts, of_kind, strict=True)]
            self._bytes += sum(map(len, of_kind))
        if self._bytes >= _FLUSH_BYTES or time.monotonic() - self._since >= _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        for kind in list(self._rows):
            self._stores[kind].add(self._rows[kind])
            self._stores[kind].merge_small()
            del self._rows[kind]
        self._bytes, self._since = 0, time.monotonic()

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self.flush()
