"""Asks many questions of an endpoint: concurrently, with retries, and within a limit of requests."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mta_framework.chat.endpoint import Endpoint, Reply, Unanswered
from mta_framework.chat.reply_cache import ReplyCache
from mta_framework.errors import Fault, RunError

if TYPE_CHECKING:
    from httpx2 import Client

FIRST_WAIT = 1.0
"""Seconds before the first retry of a question; the wait doubles with each further retry."""

_LONGEST_WAIT = 60.0
_PATIENCE = 600.0
_FEW = 5

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


class _LimitError(Exception):
    """The maximum number of requests has been sent."""


class _StoppedError(Exception):
    """Another question has failed permanently."""


class _UnusableError(Exception):
    """No answer to a question was usable."""


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
        requests: Number of requests sent.
        input_tokens: Number of input tokens, as reported by the server.
        output_tokens: Number of output tokens, as reported by the server.
    """

    name: str
    endpoint: Endpoint
    max_requests: int
    concurrency: int = 8
    retries: int = 5
    requests: int = field(default=0, init=False)
    input_tokens: int = field(default=0, init=False)
    output_tokens: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        # A separate generator, so that waiting does not consume random numbers of the run.
        self._random = random.Random()

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
            hint = self.endpoint.key_hint()
            if hint:
                raise RunError(str(Fault(self.name, "cannot send its key", "a key for this server", hint)))
            answers.update(_Round(self, check, cache).run(missing))
        return [answers[question.text] for question in questions]

    def count_request(self) -> None:
        """Count a request before it is sent.

        Raises:
            _LimitError: The maximum number of requests has been sent.
        """
        with self._lock:
            if self.requests >= self.max_requests:
                raise _LimitError
            self.requests += 1

    def count_tokens(self, reply: Reply) -> None:
        """Count the tokens of a reply, usable or not."""
        with self._lock:
            self.input_tokens += reply.input_tokens
            self.output_tokens += reply.output_tokens

    def wait_before(self, attempt: int, asked_for: float | None) -> float:
        """Return the seconds to wait before a retry, randomised so that retries do not coincide.

        Args:
            attempt: Number of retries so far.
            asked_for: Seconds that the server asks for; None: not stated.
        """
        growing = min(_LONGEST_WAIT, FIRST_WAIT * 2**attempt)
        if asked_for is not None:
            return asked_for + self._random.uniform(0, FIRST_WAIT / 2)
        return growing * self._random.uniform(0.5, 1)


class _Round:
    """One call of ``ask``: the questions that are not in the cache."""

    def __init__(self, chat: Chat, check: Check, cache: ReplyCache):
        self._chat, self._check, self._cache = chat, check, cache
        self._stop = threading.Event()

    def run(self, questions: Sequence[Question]) -> dict[str, str]:
        """Ask all questions; returns text of the question -> answer."""
        from tqdm.auto import tqdm

        chat = self._chat
        answers: dict[str, str] = {}
        unusable: list[str] = []
        with (
            chat.endpoint.client(chat.concurrency) as client,
            ThreadPoolExecutor(chat.concurrency) as pool,
            tqdm(total=len(questions), desc=chat.name, unit="answer") as bar,
        ):
            futures = {pool.submit(self._answer, client, question): question for question in questions}
            try:
                for future in as_completed(futures):
                    try:
                        answers[futures[future].text] = future.result()
                        bar.update()
                    except _LimitError:
                        continue
                    except _UnusableError as error:
                        unusable.append(f"{futures[future].name}: {error}")
            finally:
                self._stop.set()
                pool.shutdown(cancel_futures=True)
        self._raise_unanswered(len(questions), len(answers), sorted(unusable))
        return answers

    def _answer(self, client: Client, question: Question) -> str:
        chat = self._chat
        for attempt in range(chat.retries + 1):
            if self._stop.is_set():
                raise _StoppedError
            chat.count_request()
            failure: Exception
            try:
                reply = chat.endpoint.send(client, question.text)
                chat.count_tokens(reply)
                fault = self._check(reply.text)
                if fault is None:
                    self._cache.write(question.text, reply)
                    return reply.text
                failure, asked_for = _UnusableError(fault), None
            except Unanswered as error:
                failure, asked_for = self._no_answer_error(question, error), error.wait
            if asked_for is not None and asked_for > _PATIENCE:
                break
            if attempt < chat.retries:
                self._stop.wait(chat.wait_before(attempt, asked_for))
        raise failure

    def _no_answer_error(self, question: Question, error: Unanswered) -> RunError:
        wait = "" if error.wait is None else f", asks for a wait of {error.wait:.0f} s"
        problem = f"gives no answer to {question.name} (got {error}{wait})"
        hint = f"{self._kept_note()}: go on when it is available again."
        where = f"{self._chat.name}, {self._chat.endpoint.url}"
        return RunError(str(Fault(where, problem, "a working endpoint", hint)))

    def _kept_note(self) -> str:
        return "All others are kept" if self._cache.folder is not None else "No answer is kept"

    def _raise_unanswered(self, questions: int, answers: int, unusable: Sequence[str]) -> None:
        note = self._kept_note()
        if unusable:
            problem = f"gives no usable answer to {len(unusable)} of {questions} questions (got {_few(unusable)})"
            hint = f"{note}: try again, or take another model."
            raise RunError(str(Fault(self._chat.name, problem, "answers in the requested form", hint)))
        if answers < questions:
            problem = f"has reached its limit (got {questions - answers} of {questions} questions without an answer)"
            expected = f"at most {self._chat.max_requests} requests (max_requests), those that fail included"
            hint = f"{note}: raise max_requests, or go on with as many again."
            raise RunError(str(Fault(self._chat.name, problem, expected, hint)))


def _few(faults: Sequence[str]) -> str:
    more = len(faults) - _FEW
    return "; ".join(faults[:_FEW]) + (f"; and {more} more" if more > 0 else "")
