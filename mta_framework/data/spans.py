"""The span cache: every text is parsed once, by several processes, and kept on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from mta_framework.data.extraction import SpanArrays, extract
from mta_framework.data.shards import KEY, Rows, read_shard, rows_of, write_shard
from mta_framework.errors import RunError
from mta_framework.interfaces import SpanExtractor

_TEXTS_PER_PROCESS = 200
"""Below this a further process costs more than it saves: each loads its own parser."""

_TEXTS_PER_SHARD = 100_000
"""Texts that are written at once: what was parsed before an interruption is kept."""

_BATCH = 200


class SpanCache:
    """Spans by text.

    Several processes may use one folder at once; at worst a text is parsed twice.

    Args:
        folder: Where caches are. Each extractor, with its options and version, has a folder of its own in it.
        extractor: Parses texts that have not been seen.
        processes: How many parse at once; None: one per core.
    """

    def __init__(self, folder: Path, extractor: SpanExtractor, processes: int | None):
        digest = hashlib.sha256(extractor.fingerprint().encode()).hexdigest()[:16]
        self.folder = Path(folder) / f"{extractor.NAME}-{digest}"
        self.parsed = 0
        """How many texts the last call of ``spans`` parsed."""
        self._extractor = extractor
        self._processes = processes or os.cpu_count() or 1
        self._known: set[Path] = set()
        self._place: dict[bytes, tuple[Rows, int]] = {}

    def spans(self, texts: Sequence[str]) -> list[SpanArrays]:
        """Spans of texts, parsed only where the cache does not hold them.

        Args:
            texts: Any strings.

        Returns:
            For each text, granularity -> (K, 2) int32 half-open character ranges, read-only.

        Raises:
            RunError: The extractor fails or breaks its contract, or the folder cannot be created.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"span cache: cannot create {self.folder} ({error.strerror}); set data.cache_dir") from error
        self._read_new_shards()
        keys = [hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).digest() for text in texts]
        unseen = {key: number for number, key in enumerate(keys) if key not in self._place}
        numbers = sorted(unseen.values())
        for first in range(0, len(numbers), _TEXTS_PER_SHARD):
            some = numbers[first : first + _TEXTS_PER_SHARD]
            table = self._parse([texts[n] for n in some], some, [keys[n] for n in some])
            self._add(write_shard(table, self.folder), table)
        self.parsed = len(numbers)
        return [rows.spans(row) for rows, row in map(self._place.__getitem__, keys)]

    def _read_new_shards(self) -> None:
        for path in sorted(self.folder.glob("*.arrow")):
            if path not in self._known and (table := read_shard(path)) is not None:
                self._add(path, table)

    def _add(self, path: Path, table: pa.Table) -> None:
        self._known.add(path)
        for rows in rows_of(table, self._extractor.granularities):
            self._place.update((key, (rows, row)) for row, key in enumerate(rows.keys))

    def _parse(self, texts: list[str], numbers: list[int], keys: list[bytes]) -> pa.Table:
        flat = datasets.List(datasets.Value("int32"))
        features = {KEY: datasets.Value("binary"), **dict.fromkeys(self._extractor.granularities, flat)}
        processes = min(self._processes, len(texts) // _TEXTS_PER_PROCESS)
        parsed = datasets.Dataset.from_dict({"text": texts, "number": numbers, KEY: keys}).map(
            partial(_parse_batch, extractor=self._extractor),
            batched=True,
            batch_size=_BATCH,
            remove_columns=["text", "number"],
            features=datasets.Features(features),
            num_proc=processes if processes > 1 else None,
            load_from_cache_file=False,
            new_fingerprint="spans",  # given, so that the extractor is not pickled to compute one
            desc="Parsing spans",
        )
        table: pa.Table = parsed.with_format("arrow")[:]
        return table.replace_schema_metadata(None)


def _parse_batch(batch: dict[str, list[Any]], extractor: SpanExtractor) -> dict[str, list[Any]]:
    span_sets = extract(extractor, batch["text"], batch["number"])
    columns = {name: [span_set[name].ravel() for span_set in span_sets] for name in extractor.granularities}
    return {KEY: batch[KEY], **columns}
