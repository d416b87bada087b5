"""Asks many questions of a chat model: equal ones once, and none whose answer is kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mta_framework.chat.endpoint import Endpoint
from mta_framework.chat.reply_cache import ReplyCache
from mta_framework.endpoints.asker import Asker, Inquiry, Unusable

if TYPE_CHECKING:
    from httpx2 import Client

Check = Callable[[str], str | None]
"""Returns what makes an answer unusable, so that the question is asked again; None for a usable answer."""


@dataclass(frozen=True)
class Question:
    """A question.

    Args:
        name: Label of the question in messages, e.g. ``prompt 17``.
        text: Text of the question.
    """

    name: str
    text: str


@dataclass
class Chat:
    """Asks questions of one endpoint, and counts requests and tokens.

    Args:
        name: Label in messages, e.g. the name of the metric.
        endpoint: Endpoint to send requests to.
        max_requests: Maximum number of requests in the lifetime of this object, failed ones included.
        concurrency: Maximum number of concurrent requests.
        retries: Maximum number of retries per question.

    Attributes:
        input_tokens: Number of input tokens, as reported by the server.
        output_tokens: Number of output tokens, as reported by the server.
    """

    name: str
    endpoint: Endpoint
    max_requests: int
    concurrency: int = 8
    retries: int = 5
    input_tokens: int = field(default=0, init=False)
    output_tokens: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._asker = Asker(self.name, self.endpoint.server, self.max_requests, self.concurrency, self.retries)

    @property
    def requests(self) -> int:
        """Number of requests sent."""
        return self._asker.requests

    def ask(self, questions: Sequence[Question], check: Check, folder: Path | None) -> list[str]:
        """Ask all questions, equal ones once.

        A question is asked again if the connection fails, the server fails (429, 5xx) or ``check`` rejects the answer,
        after an exponentially growing wait or the wait that the server asks for.

        Args:
            questions: Questions to ask; may be empty.
            check: Returns what makes an answer unusable, or None.
            folder: Folder in which answers are kept and looked up; None: answers are not kept.

        Returns:
            The answers, in the order of the questions, all of them usable.

        Raises:
            RunError: Some question could not be answered; answers received so far are kept.
        """
        cache = ReplyCache(folder, self.endpoint)
        first: dict[str, Question] = {}
        for question in questions:
            first.setdefault(question.text, question)
        answers = {text: reply.text for text in first if (reply := cache.read(text)) and check(reply.text) is None}
        missing = [question for text, question in first.items() if text not in answers]
        if missing:
            kept_note = "All others are kept" if folder is not None else "No answer is kept"

            def send(client: Client, question: Question) -> str:
                return self._send(client, question, check, cache)

            inquiry = Inquiry(send, lambda question: question.name, "questions", kept_note, "answer")
            answers |= {question.text: answer for question, answer in self._asker.answers(missing, inquiry)}
        return [answers[question.text] for question in questions]

    def _send(self, client: Client, question: Question, check: Check, cache: ReplyCache) -> str:
        reply = self.endpoint.send(client, question.text)
        with self._lock:  # usable or not
            self.input_tokens += reply.input_tokens
            self.output_tokens += reply.output_tokens
        fault = check(reply.text)
        if fault is not None:
            raise Unusable(fault)
        cache.write(question.text, reply)
        return reply.text
