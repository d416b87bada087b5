"""The span cache: every distinct text is parsed once, by several processes, and its spans are kept on disk."""

from __future__ import annotations

import hashlib
import operator
import os
import reprlib
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mta_framework.errors import RunError, as_plugin_error
from mta_framework.interfaces import SpanExtractor
from mta_framework.spans.extraction import SpanArrays, extract
from mta_framework.storage import Shards

_KEY = "sha256"
"""Column that holds the digest of a text; granularities have one each, as flat start, end, start, end, ..."""

_FAILURES = "#failures"
"""Column with the number of segments of a text that could not be parsed."""

_HINT = "Correct the extractor, or take another."

_DEATH = "subprocesses has abruptly died"
"""In the message that datasets has for a process that is gone."""

_TEXTS_PER_PROCESS = 200
"""Below this many texts another process costs more than it saves: each loads its own parser."""

_TEXTS_PER_SHARD = 100_000
"""Texts per file; files that were written before an interruption are kept."""

_BATCH = 200


class SpanCache:
    """Spans of texts, kept on disk by the digest of the text.

    Several processes may use one folder at once; at worst a text is parsed twice.

    Args:
        folder: Directory of all span caches. Each extractor, with its options and version, has a subfolder.
        extractor: Span extractor that parses the texts missing from the cache.
        processes: Number of processes that parse at once; None means one per core.

    Raises:
        RunError: The extractor has no fingerprint.
    """

    def __init__(self, folder: Path, extractor: SpanExtractor, processes: int | None):
        digest = hashlib.sha256(f"{_FAILURES} {_fingerprint(extractor)}".encode()).hexdigest()[:16]
        self.folder = Path(folder) / f"{extractor.NAME}-{digest}"
        self.parsed = 0
        """Number of texts that the last call of ``spans`` parsed."""
        self.failures: list[int] = []
        """For each text of the last call of ``spans``, the number of segments that could not be parsed."""
        self._extractor = extractor
        self._processes = processes or os.cpu_count() or 1
        self._shards = Shards(self.folder, "span cache", "output_dir or data.cache_dir")
        self._row_of: dict[bytes, tuple[_Rows, int]] = {}

    def spans(self, texts: Sequence[str], text_indices: Sequence[int] | None = None) -> list[SpanArrays]:
        """Return the spans of texts, parsing only those that the cache lacks.

        Args:
            texts: Any strings.
            text_indices: Index of each text in the data set, which messages name; None: its position in ``texts``.

        Returns:
            For each text, granularity -> (K, 2) int32 half-open character ranges, read-only.

        Raises:
            RunError: The extractor fails or breaks its contract, a process that parses dies, or the folder cannot be
                created.
        """
        for table in self._shards.read_new():
            self._add_rows(table)
        keys = [hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).digest() for text in texts]
        unseen = sorted({key: position for position, key in enumerate(keys) if key not in self._row_of}.values())
        for first in range(0, len(unseen), _TEXTS_PER_SHARD):
            shard = unseen[first : first + _TEXTS_PER_SHARD]
            indices = shard if text_indices is None else [text_indices[position] for position in shard]
            table = self._parse(
                [texts[position] for position in shard], indices, [keys[position] for position in shard]
            )
            self._shards.add(table)
            self._add_rows(table)
        self.parsed = len(unseen)
        cached = [self._row_of[key] for key in keys]
        self.failures = [int(rows.failures[row]) for rows, row in cached]
        return [rows.spans(row) for rows, row in cached]

    def _add_rows(self, table: pa.Table) -> None:
        for rows in _rows_of(table, self._extractor.granularities):
            self._row_of.update((key, (rows, row)) for row, key in enumerate(rows.keys))

    def _parse(self, texts: list[str], text_indices: list[int], keys: list[bytes]) -> pa.Table:
        flat = datasets.List(datasets.Value("int32"))
        columns = {_KEY: datasets.Value("binary"), _FAILURES: datasets.Value("int32")}
        features = {**columns, **dict.fromkeys(self._extractor.granularities, flat)}
        processes = min(self._processes, len(texts) // _TEXTS_PER_PROCESS)
        with self._deaths_explained(), _uninterrupted_workers() if processes > 1 else nullcontext():
            parsed = datasets.Dataset.from_dict({"text": texts, "index": text_indices, _KEY: keys}).map(
                partial(_parse_batch, extractor=self._extractor),
                batched=True,
                batch_size=_BATCH,
                remove_columns=["text", "index"],
                features=datasets.Features(features),
                num_proc=processes if processes > 1 else None,
                load_from_cache_file=False,
                new_fingerprint="spans",  # given, so that the extractor is not pickled to compute one
                desc="Parsing spans",
            )
        table: pa.Table = parsed.with_format("arrow")[:]
        return table.replace_schema_metadata(None)

    @contextmanager
    def _deaths_explained(self) -> Iterator[None]:
        """Turn what datasets raises when the system ends one of its processes into a ``RunError``."""
        try:
            yield
        except RuntimeError as error:
            if _DEATH not in str(error):
                raise
            problem = "a process that parsed texts died without an error, as one does that the system ends"
            hint = (
                "There may be too little memory for so many: lower data.processes, then resume; what is parsed is kept."
            )
            raise RunError(f"span extractor {self._extractor.NAME!r}: {problem}. {hint}") from error


@contextmanager
def _uninterrupted_workers() -> Iterator[None]:
    """Processes that are started inside do not see Ctrl-C, which a terminal sends to all of them.

    This process does, and ends them; they would each print a traceback, or wait for one another for ever. It learns of
    the signal by a thread that, unlike the main thread and what that starts, has it not blocked.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    finished = threading.Event()
    listener = threading.Thread(target=finished.wait, daemon=True)
    listener.start()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    except Exception as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # datasets asks the workers once more, without an answer
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        finished.set()
        listener.join()


class _Rows(NamedTuple):
    """Spans of several texts, as views into a file: row r of a granularity is ``values[bounds[r] : bounds[r + 1]]``."""

    keys: list[bytes]
    failures: NDArray[np.int32]
    bounds: dict[str, NDArray[np.int32]]
    values: dict[str, NDArray[np.int32]]

    def spans(self, row: int) -> SpanArrays:
        return {
            granularity: values[self.bounds[granularity][row] : self.bounds[granularity][row + 1]].reshape(-1, 2)
            for granularity, values in self.values.items()
        }


def _rows_of(table: pa.Table, granularities: Sequence[str]) -> Iterator[_Rows]:
    """The rows of a table, without copying spans."""
    for batch in table.to_batches():
        columns = {granularity: batch.column(granularity) for granularity in granularities}
        yield _Rows(
            keys=batch.column(_KEY).to_pylist(),
            failures=batch.column(_FAILURES).to_numpy(),
            bounds={name: column.offsets.to_numpy() for name, column in columns.items()},
            values={name: column.values.to_numpy() for name, column in columns.items()},
        )


def _parse_batch(batch: dict[str, list[Any]], extractor: SpanExtractor) -> dict[str, list[Any]]:
    span_sets = extract(extractor, batch["text"], batch["index"])
    columns = {name: [span_set[name].ravel() for span_set in span_sets] for name in extractor.granularities}
    return {_KEY: batch[_KEY], _FAILURES: _failures(extractor, batch["text"]), **columns}


def _failures(extractor: SpanExtractor, texts: Sequence[str]) -> list[int]:
    plugin = f"span extractor {extractor.NAME!r}: failures()"
    with as_plugin_error(plugin):
        returned = extractor.failures(tuple(texts))
    try:
        counts = [operator.index(count) for count in returned]
    except TypeError:
        counts = []
    if len(counts) != len(texts) or any(count < 0 for count in counts):
        expected = f"one count >= 0 per text, {len(texts)}"
        raise RunError(f"{plugin} returned something else (got {reprlib.repr(returned)}); expected {expected}. {_HINT}")
    return counts


def _fingerprint(extractor: SpanExtractor) -> str:
    plugin = f"span extractor {extractor.NAME!r}: fingerprint()"
    with as_plugin_error(plugin):
        fingerprint = extractor.fingerprint()
    if not isinstance(fingerprint, str):
        problem = f"returned something else (got {reprlib.repr(fingerprint)})"
        raise RunError(f"{plugin} {problem}; expected JSON as a string. {_HINT}")
    return fingerprint
