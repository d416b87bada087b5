"""The response cache: keeps the responses of a model on disk, by the state of the model and the prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from mta_framework.data.response_encoding import TokenResponse
from mta_framework.storage import Shards
from mta_framework.types import Example

_SCHEMA = pa.schema({"prompt": pa.binary(), "response": pa.list_(pa.int32()), "finished": pa.bool_()})
"""A prompt is the bytes of its int32 ids."""

_LOG_PROBS = pa.field("log_probs", pa.list_(pa.float32()))
"""A further column where log-probabilities were kept."""


class ResponseCache:
    """Responses on disk, by the token ids of their prompt.

    Several processes may use one folder at once. The first response to a prompt is kept; later ones are ignored.

    Args:
        folder: Directory of all response caches. Each fingerprint has a subfolder.
        fingerprint: String of everything but the prompt that responses depend on: state of the model, sampling.
    """

    def __init__(self, folder: Path, fingerprint: str):
        self.folder = Path(folder) / f"responses-{hashlib.sha256(fingerprint.encode()).hexdigest()[:16]}"
        self._shards = Shards(self.folder, "response cache", "output_dir")
        self._row_of: dict[bytes, tuple[pa.RecordBatch, int]] = {}

    def lookup(self, prompts: Sequence[Example]) -> list[TokenResponse | None]:
        """Look up responses, including those that other processes have added since.

        Args:
            prompts: Examples, of which only the prompts are used.

        Returns:
            The response to each prompt; None where the cache has none.

        Raises:
            RunError: The folder cannot be created.
        """
        self._read()
        rows = [self._row_of.get(_key(prompt)) for prompt in prompts]
        return [None if row is None else _response(*row) for row in rows]

    def add(self, prompts: Sequence[Example], responses: Sequence[TokenResponse]) -> None:
        """Write responses to disk immediately, so that a later interruption does not lose them.

        Args:
            prompts: Examples, of which only the prompts are used.
            responses: One response per prompt.

        Raises:
            RunError: The folder cannot be created or written to.
        """
        rows = [
            {"prompt": _key(prompt), "response": response.ids, "finished": response.finished}
            | ({"log_probs": response.log_probs} if response.log_probs else {})
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        if not rows:
            return
        self._read()
        has_log_probs = any("log_probs" in row for row in rows)
        table = pa.Table.from_pylist(rows, schema=_SCHEMA.append(_LOG_PROBS) if has_log_probs else _SCHEMA)
        self._shards.add(table)
        self._add_rows(table)

    def _read(self) -> None:
        for table in self._shards.read_new():
            self._add_rows(table)

    def _add_rows(self, table: pa.Table) -> None:
        for batch in table.to_batches():
            for row, key in enumerate(batch.column("prompt").to_pylist()):
                self._row_of.setdefault(key, (batch, row))


def _key(prompt: Example) -> bytes:
    return prompt.prompt_ids.astype(np.int32).tobytes()


def _response(batch: pa.RecordBatch, row: int) -> TokenResponse:
    has_log_probs = _LOG_PROBS.name in batch.schema.names
    log_probs = batch.column(_LOG_PROBS.name)[row].as_py() if has_log_probs else None
    response, finished = batch.column("response")[row].as_py(), batch.column("finished")[row].as_py()
    return TokenResponse(tuple(response), finished, tuple(log_probs or ()))
