"""Puts many questions to an endpoint: several at a time, again where that may help, and within a limit."""

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
"""Seconds before a question is asked for the second time; twice as many before each further time."""

_LONGEST_WAIT = 60.0
_PATIENCE = 600.0
_FEW = 5

Check = Callable[[str], str | None]
"""What is wrong with an answer, so that it must be asked for again; None if nothing is."""


@dataclass(frozen=True)
class Question:
    """A question, and what messages call it, e.g. ``prompt 17``."""

    name: str
    text: str


class _LimitError(Exception):
    """No request may be sent any more."""


class _StoppedError(Exception):
    """Another question has failed for good."""


class _UnusableError(Exception):
    """No answer to a question was of any use."""


@dataclass
class Chat:
    """Asks one endpoint, and counts what that takes.

    Args:
        name: What messages call it.
        endpoint: Who is asked.
        max_requests: Requests that may be sent in the lifetime of this object, those that fail included.
        concurrency: Requests that may be under way at once.
        retries: How often a question is asked again.
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
        # Its own, so that waiting leaves the run's random numbers alone.
        self._random = random.Random()

    def ask(self, questions: Sequence[Question], check: Check, folder: Path | None) -> list[str]:
        """Ask all of them; equal questions once.

        A question is asked again after a growing wait, or the one that the server names, where the connection, the
        server (429, 5xx) or ``check`` failed it.

        Args:
            questions: Any number.
            check: Says what is wrong with an answer.
            folder: Where answers are kept; what is there already is not asked for. None: nowhere.

        Returns:
            The answers, in the order of the questions, all of which ``check`` finds nothing wrong with.

        Raises:
            RunError: Not all could be answered; those that were are kept.
        """
        kept = ReplyCache(folder, self.endpoint)
        first: dict[str, Question] = {}
        for question in questions:
            first.setdefault(question.text, question)
        found = {text: reply.text for text in first if (reply := kept.read(text)) and check(reply.text) is None}
        missing = [question for text, question in first.items() if text not in found]
        if missing:
            lack = self.endpoint.missing()
            if lack:
                raise RunError(str(Fault(self.name, "has no key (got none to send)", "a key is needed", lack)))
            found.update(_Round(self, check, kept).run(missing))
        return [found[question.text] for question in questions]

    def spend(self) -> None:
        """Count a request that is about to be sent."""
        with self._lock:
            if self.requests >= self.max_requests:
                raise _LimitError
            self.requests += 1

    def count(self, reply: Reply) -> None:
        """Count the tokens of a reply, of whatever use it is."""
        with self._lock:
            self.input_tokens += reply.input_tokens
            self.output_tokens += reply.output_tokens

    def wait(self, attempt: int, asked_for: float | None) -> float:
        """Seconds before the next attempt; spread at random, so that not all questions come back at once."""
        growing = min(_LONGEST_WAIT, FIRST_WAIT * 2**attempt)
        if asked_for is not None:
            return asked_for + self._random.uniform(0, FIRST_WAIT / 2)
        return growing * self._random.uniform(0.5, 1)


class _Round:
    """The questions of one call, on their way."""

    def __init__(self, chat: Chat, check: Check, kept: ReplyCache):
        self._chat, self._check, self._kept = chat, check, kept
        self._stop = threading.Event()

    def run(self, questions: Sequence[Question]) -> dict[str, str]:
        """Question -> answer, for all of them."""
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
        self._complain(len(questions), len(answers), sorted(unusable))
        return answers

    def _answer(self, client: Client, question: Question) -> str:
        chat = self._chat
        for attempt in range(chat.retries + 1):
            if self._stop.is_set():
                raise _StoppedError
            chat.spend()
            failure: Exception
            try:
                reply = chat.endpoint.send(client, question.text)
                chat.count(reply)
                fault = self._check(reply.text)
                if fault is None:
                    self._kept.write(question.text, reply)
                    return reply.text
                failure, asked_for = _UnusableError(fault), None
            except Unanswered as error:
                failure, asked_for = self._gone(question, error), error.wait
            if asked_for is not None and asked_for > _PATIENCE:
                break
            if attempt < chat.retries:
                self._stop.wait(chat.wait(attempt, asked_for))
        raise failure

    def _gone(self, question: Question, error: Unanswered) -> RunError:
        wait = "" if error.wait is None else f", asks for a wait of {error.wait:.0f} s"
        problem = f"gives no answer to {question.name} (got {error}{wait})"
        hint = f"{self._told_of_others()}: go on when it is there again."
        return RunError(
            str(Fault(f"{self._chat.name}, {self._chat.endpoint.url}", problem, "a working endpoint", hint))
        )

    def _told_of_others(self) -> str:
        return "All others are kept" if self._kept.folder is not None else "No answer is kept"

    def _complain(self, questions: int, answers: int, unusable: Sequence[str]) -> None:
        kept = self._told_of_others()
        if unusable:
            problem = f"gives no usable answer to {len(unusable)} of {questions} questions (got {_few(unusable)})"
            hint = f"{kept}: try again, or take another model."
            raise RunError(str(Fault(self._chat.name, problem, "answers of the form that is asked for", hint)))
        if answers < questions:
            problem = f"has reached its limit (got {questions - answers} of {questions} questions without an answer)"
            expected = f"max_requests is {self._chat.max_requests}, those that fail included"
            hint = f"{kept}: raise max_requests, or go on with as many again."
            raise RunError(str(Fault(self._chat.name, problem, expected, hint)))


def _few(faults: Sequence[str]) -> str:
    more = len(faults) - _FEW
    return "; ".join(faults[:_FEW]) + (f"; and {more} more" if more > 0 else "")
