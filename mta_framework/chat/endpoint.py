"""Sends a question to a chat model behind an OpenAI-compatible server and reads the reply."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mta_framework.endpoints.server import Server, Unanswered

if TYPE_CHECKING:
    from httpx2 import Client

_MAX_BYTES = 2**24


@dataclass(frozen=True)
class Reply:
    """The reply of a model.

    Args:
        text: Text that the model wrote.
        input_tokens: Number of input tokens; 0 where the server reports none.
        output_tokens: Number of output tokens; 0 where the server reports none.
    """

    text: str
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Endpoint:
    """A model behind ``BASE_URL/chat/completions``.

    Args:
        base_url: http or https URL without user, query and fragment, e.g. ``https://api.openai.com/v1``.
        model: Name of the model at the server.
        key_env: Environment variable that holds the API key; None: no key is sent.
        temperature: Sampling temperature; None: the default of the server.
        timeout: Maximum seconds for a whole request.

    Raises:
        ValueError: ``base_url`` is no such URL.
    """

    base_url: str
    model: str
    key_env: str | None = None
    temperature: float | None = 0.0
    timeout: float = 120.0

    def __post_init__(self) -> None:
        self.server  # noqa: B018 - raises where the URL is none

    @cached_property
    def server(self) -> Server:
        """The server of the model."""
        return Server(self.base_url, self.key_env, self.timeout)

    @property
    def url(self) -> str:
        """URL that requests are sent to."""
        return f"{self.base_url.rstrip('/')}/chat/completions"

    def body(self, question: str) -> dict[str, Any]:
        """Return the JSON body of the request for a question."""
        sampling = {} if self.temperature is None else {"temperature": self.temperature}
        return {"model": self.model, "messages": [{"role": "user", "content": question}], **sampling}

    def key_hint(self) -> str | None:
        """Return a sentence that says why the API key cannot be sent, and what to do; None if requests can be sent."""
        return self.server.key_hint()

    def send(self, client: Client, question: str) -> Reply:
        """Send one request and read the reply.

        Args:
            client: HTTP client of ``server``.
            question: Text of the question.

        Raises:
            Unanswered: The failure may be temporary: connection, server, rate limit, timeout, malformed reply.
            RunError: The server refuses the request.
        """
        reply = _reply(self.server.post(client, self.url, self.body(question), _MAX_BYTES))
        return replace(reply, text=self.server.redacted(reply.text))


def _reply(content: bytes) -> Reply:
    try:
        body = json.loads(content)
        text = body["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise Unanswered("a reply that is not of OpenAI's form") from None
    # The content is null where a model refuses to answer, or reasoned up to its limit.
    text = text if isinstance(text, str) else ""
    return Reply(text, _count(body, "prompt_tokens"), _count(body, "completion_tokens"))


def _count(body: dict[str, Any], name: str) -> int:
    usage = body.get("usage")
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) and count > 0 else 0
