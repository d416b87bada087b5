"""The response cache: what a model wrote is kept on disk by model state and prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from mta_framework.data.responses import Response
from mta_framework.storage import Shards
from mta_framework.types import Example

_SCHEMA = pa.schema({"prompt": pa.binary(), "response": pa.list_(pa.int32()), "finished": pa.bool_()})
"""A prompt is the bytes of its int32 ids."""


class ResponseCache:
    """Responses by the tokens of their prompt.

    Several processes may use one folder at once. The first response to a prompt stays: later ones have no effect.

    Args:
        folder: Where caches are. Each identity has a folder of its own in it.
        identity: All that responses depend on besides the prompt: state of the model, sampling.
    """

    def __init__(self, folder: Path, identity: str):
        self.folder = Path(folder) / f"responses-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
        self._shards = Shards(self.folder, "response cache", "output_dir")
        self._place: dict[bytes, tuple[pa.RecordBatch, int]] = {}

    def known(self, prompts: Sequence[Example]) -> list[Response | None]:
        """The response to each prompt, or None; what other processes have added meanwhile is seen.

        Raises:
            RunError: The folder cannot be created.
        """
        self._read()
        places = [self._place.get(_key(prompt)) for prompt in prompts]
        return [None if place is None else _response(*place) for place in places]

    def add(self, prompts: Sequence[Example], responses: Sequence[Response]) -> None:
        """Keep responses, at once: they outlive an interruption of what follows.

        Args:
            prompts: Texts, of which only the prompts matter.
            responses: One for each.

        Raises:
            RunError: The folder cannot be created, or not be written to.
        """
        rows = [
            {"prompt": _key(prompt), "response": response.ids, "finished": response.finished}
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        if not rows:
            return
        self._read()
        table = pa.Table.from_pylist(rows, schema=_SCHEMA)
        self._shards.add(table)
        self._place_rows(table)

    def _read(self) -> None:
        for table in self._shards.unread():
            self._place_rows(table)

    def _place_rows(self, table: pa.Table) -> None:
        for batch in table.to_batches():
            for row, key in enumerate(batch.column("prompt").to_pylist()):
                self._place.setdefault(key, (batch, row))


def _key(prompt: Example) -> bytes:
    return prompt.prompt_ids.astype(np.int32).tobytes()


def _response(batch: pa.RecordBatch, row: int) -> Response:
    return Response(tuple(batch.column("response")[row].as_py()), batch.column("finished")[row].as_py())
