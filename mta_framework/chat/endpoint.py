"""One request to an OpenAI-compatible endpoint, and what comes of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mta_framework.errors import Fault, RunError

if TYPE_CHECKING:
    from httpx2 import Client, Response

_PASSING = (408, 425, 429)
_LARGEST = 2**24
_SHOWN = 300


class Unanswered(Exception):
    """No answer came, and one may come if asked again: after ``wait`` seconds, where the server says so."""

    def __init__(self, reason: str, wait: float | None = None):
        self.wait = wait
        super().__init__(reason)


@dataclass(frozen=True)
class Reply:
    """What a model wrote, and what was counted as input and output; 0 where the server counts nothing."""

    text: str
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Endpoint:
    """A model behind ``BASE_URL/chat/completions``.

    Args:
        base_url: http or https, without a user, a query or a fragment, e.g. ``https://api.openai.com/v1``.
        model: Its name there.
        key_env: The environment variable that holds the key; None: no key is sent.
        temperature: Of sampling; None: the server's own.
        timeout: Seconds for one whole request.

    Raises:
        ValueError: ``base_url`` is no such URL.
    """

    base_url: str
    model: str
    key_env: str | None = None
    temperature: float | None = 0.0
    timeout: float = 120.0

    def __post_init__(self) -> None:
        if "@" in self.base_url:
            raise ValueError("may hold no user and no password (got an @): keys come from the environment")
        try:
            parts = urlsplit(self.base_url)
            sound = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        except ValueError:
            sound = False
        if not sound or any(mark in self.base_url for mark in "?# \\") or not self.base_url.isprintable():
            raise ValueError("must be an http or https URL without query and fragment")

    @property
    def url(self) -> str:
        """Where requests go to."""
        return f"{self.base_url.rstrip('/')}/chat/completions"

    def body(self, question: str) -> dict[str, Any]:
        """What is sent."""
        sampling = {} if self.temperature is None else {"temperature": self.temperature}
        return {"model": self.model, "messages": [{"role": "user", "content": question}], **sampling}

    def missing(self) -> str | None:
        """What is missing to ask, as a sentence that says how to get it; None if nothing is."""
        if self.key_env is None:
            return None
        key = self._key()
        if not key:
            return (
                f"Put the key into the environment variable {self.key_env}, or set key_env to null if none is needed."
            )
        if not (key.isascii() and key.isprintable()):
            return f"The environment variable {self.key_env} holds characters that no key has: put the key alone there."
        return None

    def client(self, connections: int) -> Client:
        """What ``send`` needs; redirects are not followed, so the key goes to no other server."""
        from httpx2 import Client, Limits

        headers = {"Content-Type": "application/json"}
        if self.key_env is not None:
            headers["Authorization"] = f"Bearer {self._key()}"
        return Client(headers=headers, timeout=self.timeout, limits=Limits(max_connections=connections))

    def send(self, client: Client, question: str) -> Reply:
        """Ask once.

        Raises:
            Unanswered: Something failed that may pass: the connection, the server, its patience, the reply's form.
            RunError: The server refuses the request.
        """
        from httpx2 import RequestError

        end = time.monotonic() + self.timeout
        try:
            # Escaped to ASCII: a text may hold half a surrogate pair, which has no bytes of its own.
            with client.stream("POST", self.url, content=json.dumps(self.body(question))) as response:
                content = b"".join(self._parts(response, end))
        except RequestError as error:
            raise Unanswered(self._shown(f"{type(error).__name__} {error}".strip())) from None
        if response.status_code == 200:
            return _reply(content)
        told = f"HTTP {response.status_code} {self._shown(_message(content))}".strip()
        if response.status_code in _PASSING or response.status_code >= 500:
            raise Unanswered(told, _wait(response.headers.get("Retry-After", "")))
        problem, expected = f"refuses the request (got {told})", "a request that it takes"
        raise RunError(str(Fault(self.url, problem, expected, "Check base_url, model and the key, then go on.")))

    def _key(self) -> str:
        return os.environ.get(self.key_env or "", "").strip()

    def _shown(self, text: str) -> str:
        """Someone else's text, short and without the key."""
        key = self._key() if self.key_env else ""
        return " ".join((text.replace(key, "***") if key else text).split())[:_SHOWN]

    def _parts(self, response: Response, end: float) -> Iterator[bytes]:
        """The body; a server that sends it drop by drop has no more time than another."""
        size = 0
        for part in response.iter_bytes():
            size += len(part)
            if time.monotonic() > end:
                raise Unanswered(f"no whole reply within {self.timeout:g} s")
            if size > _LARGEST:
                raise Unanswered(f"a reply of more than {_LARGEST} bytes")
            yield part


def _reply(content: bytes) -> Reply:
    try:
        body = json.loads(content)
        text = body["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise Unanswered("a reply that is not of OpenAI's form") from None
    # A model that refuses to answer, or that has thought too long, has nothing there.
    text = text if isinstance(text, str) else ""
    return Reply(text, _count(body, "prompt_tokens"), _count(body, "completion_tokens"))


def _count(body: dict[str, Any], name: str) -> int:
    usage = body.get("usage")
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) and count > 0 else 0


def _message(content: bytes) -> str:
    """What the server says of an error: OpenAI's form, or whatever it sends."""
    try:
        error = json.loads(content)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, LookupError, TypeError, RecursionError):
        return content[: 4 * _SHOWN].decode(errors="replace")


def _wait(header: str) -> float | None:
    """Seconds of a ``Retry-After``, which gives them or a date."""
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())
