"""Sends requests to one HTTP server: what a key may do, timeouts, limits of size, and the failures that may pass."""

from __future__ import annotations

import ipaddress
import json
import os
import re
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

_TRANSIENT = (408, 425, 429)
_MAX_SHOWN = 300

HOSTS_ENV = "MTA_KEY_HOSTS"
"""Environment variable with the hosts that keys may be sent to, separated by commas."""

_KEY = re.compile(r"[!#-&(-\[\]-~]+")  # without quotes and backslash, so that it reads the same wherever it is quoted


class Unanswered(Exception):
    """A request failed in a way that a retry may cure.

    Args:
        reason: What failed, for messages.
        wait: Seconds after which the server asks to retry; None: not stated.
    """

    def __init__(self, reason: str, wait: float | None = None):
        self.wait = wait
        super().__init__(reason)


class Refused(RunError):
    """The server refuses a request, and would refuse it again.

    Args:
        message: The whole message.
        status: HTTP status.
    """

    def __init__(self, message: str, status: int):
        self.status = status
        super().__init__(message)


@dataclass(frozen=True)
class Server:
    """A server, and the key that it may be sent.

    Args:
        base_url: http or https URL without user, query and fragment, e.g. ``https://api.openai.com/v1``.
        key_env: Environment variable that holds the API key; None: no key is sent.
        timeout: Maximum seconds for a whole request.

    Raises:
        ValueError: ``base_url`` is no such URL.
    """

    base_url: str
    key_env: str | None = None
    timeout: float = 120.0

    def __post_init__(self) -> None:
        if "@" in self.base_url:
            hidden = "***" + self.base_url[self.base_url.rindex("@") :]
            raise ValueError(f"may hold no user and no password, as keys come from the environment (got {hidden!r})")
        try:
            parts = urlsplit(self.base_url)
            sound = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        except ValueError:
            sound = False
        if not sound or any(mark in self.base_url for mark in "?# \\") or not self.base_url.isprintable():
            raise ValueError("must be an http or https URL without query and fragment")

    def key_hint(self) -> str | None:
        """Return a sentence that says why the API key cannot be sent, and what to do; None if requests can be sent.

        A spec names the server, but may be somebody else's. So a key goes only to hosts that ``MTA_KEY_HOSTS`` names,
        and over plain http only to this machine.
        """
        if self.key_env is None:
            return None
        key, host = self._key(), str(urlsplit(self.base_url).hostname)
        if not key:
            return (
                f"Put the key into the environment variable {self.key_env}, or set key_env to null if none is needed."
            )
        if not _KEY.fullmatch(key):
            return f"The environment variable {self.key_env} holds characters that no key has: put the key alone there."
        if not self.base_url.lower().startswith("https:") and not _is_this_machine(host):
            return f"{host} would get the key over plain http, readable on the way: use https, or set key_env to null."
        if host not in _trusted_hosts():
            return f"If you trust {host} with the key in {self.key_env}, say so in the shell: export {HOSTS_ENV}={host}"
        return None

    def client(self, connections: int) -> Client:
        """Create the HTTP client for ``post``. Redirects are not followed, so the key is sent to no other server.

        Args:
            connections: Maximum number of concurrent connections.

        Raises:
            ValueError: The key cannot be sent, see ``key_hint``.
        """
        from httpx2 import Client, Limits

        if hint := self.key_hint():
            raise ValueError(hint)
        headers = {"Content-Type": "application/json"}
        if self.key_env is not None:
            headers["Authorization"] = f"Bearer {self._key()}"
        return Client(headers=headers, timeout=self.timeout, limits=Limits(max_connections=connections))

    def post(self, client: Client, url: str, body: dict[str, Any], max_bytes: int) -> bytes:
        """Send one JSON request and return the body of the reply.

        Args:
            client: HTTP client from ``client``.
            url: URL of this server.
            body: The request.
            max_bytes: Size above which a reply counts as a failure.

        Raises:
            Unanswered: The failure may be temporary: connection, server, rate limit, timeout, size.
            Refused: The server refuses the request.
        """
        from httpx2 import RequestError

        end = time.monotonic() + self.timeout
        try:
            # Escaped to ASCII: a text may contain half a surrogate pair, which cannot be encoded.
            with client.stream("POST", url, content=json.dumps(body)) as response:
                content = b"".join(self._parts(response, end, max_bytes))
        except RequestError as error:
            raise Unanswered(self.shown(f"{type(error).__name__} {error}".strip())) from None
        if response.status_code == 200:
            return content
        status = f"HTTP {response.status_code} {self.shown(_message(content))}".strip()
        if response.status_code in _TRANSIENT or response.status_code >= 500:
            raise Unanswered(status, _wait(response.headers.get("Retry-After", "")))
        problem, expected = f"refuses the request (got {status})", "a request that it accepts"
        hint = "Check URL, model and key, then go on."
        raise Refused(str(Fault(url, problem, expected, hint)), response.status_code)

    def redacted(self, text: str) -> str:
        """Replace the key by ``***``, since a server may send back what it was sent."""
        key = self._key() if self.key_env else ""
        return text.replace(key, "***") if key else text

    def shown(self, text: str) -> str:
        """A foreign text for a message: without the key, on one line, shortened in this order, so no part is left."""
        return " ".join(self.redacted(text).split())[:_MAX_SHOWN]

    def _key(self) -> str:
        return os.environ.get(self.key_env or "", "").strip()

    def _parts(self, response: Response, end: float, max_bytes: int) -> Iterator[bytes]:
        """The body in parts; the timeout covers the whole body, however slowly it arrives."""
        size = 0
        for part in response.iter_bytes():
            size += len(part)
            if time.monotonic() > end:
                raise Unanswered(f"no whole reply within {self.timeout:g} s")
            if size > max_bytes:
                raise Unanswered(f"a reply of more than {max_bytes} bytes")
            yield part


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _trusted_hosts() -> set[str]:
    return {host.strip().lower() for host in os.environ.get(HOSTS_ENV, "").split(",")}


def _message(content: bytes) -> str:
    """The error message of the server, in OpenAI's form or as sent."""
    try:
        error = json.loads(content)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, LookupError, TypeError, RecursionError):
        return content.decode(errors="replace")


def _wait(header: str) -> float | None:
    """Seconds of a ``Retry-After`` header, which holds seconds or a date."""
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())
