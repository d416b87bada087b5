"""Keeps replies on disk, by the URL and body of their request."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

from mta_framework.chat.endpoint import Endpoint, Reply
from mta_framework.storage import write_atomically


@dataclass(frozen=True)
class ReplyCache:
    """A folder of replies of one endpoint.

    Args:
        folder: Folder of the replies; None: nothing is kept.
        endpoint: Endpoint that the replies come from.
    """

    folder: Path | None
    endpoint: Endpoint

    def read(self, question: str) -> Reply | None:
        """Return the kept reply to a question; None if there is none or it is damaged."""
        path = self._path(question)
        if path is None:
            return None
        try:
            entry = json.loads(path.read_bytes())
            reply = Reply(**entry["reply"])
        except (OSError, ValueError, LookupError, TypeError):
            return None
        same = entry.get("url") == self.endpoint.url and entry.get("request") == self.endpoint.body(question)
        kinds = tuple(map(type, astuple(reply)))
        return reply if same and kinds == (str, int, int) else None

    def write(self, question: str, reply: Reply) -> None:
        """Write a reply to disk, complete or not at all."""
        path = self._path(question)
        if path is not None:
            entry = {"url": self.endpoint.url, "request": self.endpoint.body(question), "reply": asdict(reply)}
            write_atomically(path, json.dumps(entry, indent=1))

    def _path(self, question: str) -> Path | None:
        request = json.dumps([self.endpoint.url, self.endpoint.body(question)], sort_keys=True)
        digest = hashlib.sha256(request.encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest}.json" if self.folder is not None else None
