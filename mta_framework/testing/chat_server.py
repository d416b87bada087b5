"""A local server that imitates a chat model's API, for tests of plugins that call one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Mishap = Callable[[BaseHTTPRequestHandler], None]
"""A function that answers a request in place of the server, e.g. ``fail(...)``."""


@dataclass(frozen=True)
class Received:
    """A request that the server received.

    Args:
        path: Path of the URL.
        headers: HTTP headers.
        body: JSON body.
    """

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def question(self) -> str:
        """Content of the last message."""
        return str(self.body["messages"][-1]["content"])


class ChatServer:
    """Answers ``POST .../chat/completions`` in OpenAI's format; a context manager.

    Args:
        answer: Returns the answer to a question.
        mishaps: Functions that answer the first requests, one each, instead of ``answer``.
        seconds: Duration of each answer.

    Attributes:
        base_url: URL of the API, for the client.
        received: All requests so far, in order of arrival.
        most_at_once: Largest number of requests that were open at the same time.
    """

    def __init__(self, answer: Callable[[str], str | None], mishaps: Iterable[Mishap] = (), seconds: float = 0.0):
        self.received: list[Received] = []
        self.most_at_once = 0
        self._answer, self._mishaps, self._seconds = answer, list(mishaps), seconds
        self._now = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reply(self, handler: BaseHTTPRequestHandler, request: Received) -> None:
        """Answer a request.

        Args:
            handler: Sends the response.
            request: The request.
        """
        send_answer(handler, self._answer(request.question))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._serve(self)

            def log_message(self, format: str, *args: object) -> None:
                """Keep standard error clean."""

        return Handler

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        request = Received(handler.path, dict(handler.headers.items()), body)
        with self._lock:
            self.received.append(request)
            mishap = self._mishaps.pop(0) if self._mishaps else None
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            time.sleep(self._seconds)
            if mishap is not None:
                mishap(handler)
            else:
                self.reply(handler, request)
        except OSError:
            handler.close_connection = True  # the client has gone
        finally:
            with self._lock:
                self._now -= 1


def send_answer(handler: BaseHTTPRequestHandler, text: str | None) -> None:
    """Send an answer, with a usage of 100 prompt tokens and 10 completion tokens."""
    choices = [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    send_response(handler, 200, json.dumps({"object": "chat.completion", "choices": choices, "usage": usage}).encode())


def send_response(
    handler: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str] | None = None
) -> None:
    """Send an HTTP response."""
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)


def fail(status: int, message: str = "", headers: dict[str, str] | None = None) -> Mishap:
    """Create a mishap: an HTTP error of this status, in OpenAI's format."""
    content = json.dumps({"error": {"message": message, "type": "error", "code": None}}).encode()
    return lambda handler: send_response(handler, status, content, headers)
