"""Sends many requests to one server: concurrently, with retries, and within a limit of requests."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from mta_framework.endpoints.server import Server, Unanswered
from mta_framework.errors import Fault, RunError

if TYPE_CHECKING:
    from httpx2 import Client

FIRST_WAIT = 1.0
"""Seconds before the first retry of a request; the wait doubles with each further retry."""

_LONGEST_WAIT = 60.0
_PATIENCE = 600.0
_FEW = 5

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Unusable(Exception):
    """An answer arrived that is of no use; another attempt may give a better one."""


class LimitError(Exception):
    """The maximum number of requests has been sent."""


class _StoppedError(Exception):
    """Another request has failed permanently."""


@dataclass(frozen=True)
class Inquiry(Generic[Item, Answer]):
    """How items are asked for.

    Args:
        send: Sends one request for an item and returns the answer; called in several threads. It raises ``Unanswered``
            or ``Unusable`` where another attempt may help.
        label: Returns the label of an item in messages, e.g. ``prompt 17``.
        noun: What the items are, in the plural, e.g. ``questions``.
        kept_note: Sentence about the answers that arrived before a failure.
        unit: Unit of the progress bar; empty: no bar is shown.
    """

    send: Callable[[Client, Item], Answer]
    label: Callable[[Item], str]
    noun: str
    kept_note: str
    unit: str = ""


@dataclass
class Asker:
    """Sends requests to one server, and counts them.

    Args:
        name: Label in messages, e.g. the name of a metric.
        server: The server.
        max_requests: Maximum number of requests in the lifetime of this object, failed ones included; None: no limit.
        concurrency: Maximum number of concurrent requests.
        retries: Maximum number of retries per item.

    Attributes:
        requests: Number of requests sent.
    """

    name: str
    server: Server
    max_requests: int | None
    concurrency: int
    retries: int
    requests: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        # A separate generator, so that waiting does not consume random numbers of the run.
        self._random = random.Random()

    def answers(self, items: Sequence[Item], inquiry: Inquiry[Item, Answer]) -> Iterator[tuple[Item, Answer]]:
        """Ask for all items, and yield each with its answer as answers arrive.

        An item is asked for again if the connection fails, the server fails (429, 5xx) or the answer is unusable, after
        an exponentially growing wait or the wait that the server asks for.

        Args:
            items: The items.
            inquiry: How they are asked for.

        Raises:
            RunError: Some item could not be answered.
        """
        hint = self.server.key_hint()
        if hint:
            raise RunError(str(Fault(self.name, "cannot send its key", "a key for this server", hint)))
        return _Round(self, inquiry).run(items)

    def count_request(self) -> None:
        """Count a request before it is sent.

        Raises:
            LimitError: The maximum number of requests has been sent.
        """
        with self._lock:
            if self.max_requests is not None and self.requests >= self.max_requests:
                raise LimitError
            self.requests += 1

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


class _Round(Generic[Item, Answer]):
    """One call of ``answers``."""

    def __init__(self, asker: Asker, inquiry: Inquiry[Item, Answer]):
        self._asker, self._inquiry = asker, inquiry
        self._stop = threading.Event()

    def run(self, items: Sequence[Item]) -> Iterator[tuple[Item, Answer]]:
        from tqdm.auto import tqdm

        asker, unit = self._asker, self._inquiry.unit
        answered, unusable = 0, list[str]()
        with (
            asker.server.client(asker.concurrency) as client,
            ThreadPoolExecutor(asker.concurrency) as pool,
            tqdm(total=len(items), desc=asker.name, unit=unit, disable=not unit) as bar,
        ):
            try:
                for item, future in self._completed(pool, client, items):
                    try:
                        answer = future.result()
                    except LimitError:
                        continue
                    except Unusable as error:
                        unusable.append(f"{self._inquiry.label(item)}: {error}")
                        continue
                    answered += 1
                    bar.update()
                    yield item, answer
            finally:
                self._stop.set()
                pool.shutdown(cancel_futures=True)
        self._raise_unanswered(len(items), answered, sorted(unusable))

    def _completed(
        self, pool: ThreadPoolExecutor, client: Client, items: Sequence[Item]
    ) -> Iterator[tuple[Item, Future[Answer]]]:
        """Items with their futures as they are done; few are under way or wait to be taken, as answers may be large."""
        pending: dict[Future[Answer], Item] = {}
        for item in items:
            pending[pool.submit(self._answer, client, item)] = item
            if len(pending) >= 2 * self._asker.concurrency:
                yield from self._done(pending)
        while pending:
            yield from self._done(pending)

    def _done(self, pending: dict[Future[Answer], Item]) -> Iterator[tuple[Item, Future[Answer]]]:
        for future in wait(pending, return_when=FIRST_COMPLETED).done:
            yield pending.pop(future), future

    def _answer(self, client: Client, item: Item) -> Answer:
        asker = self._asker
        for attempt in range(asker.retries + 1):
            if self._stop.is_set():
                raise _StoppedError
            asker.count_request()
            failure: Exception
            asked_for: float | None = None
            try:
                return self._inquiry.send(client, item)
            except Unusable as error:
                failure = error
            except Unanswered as error:
                failure, asked_for = self._no_answer_error(item, error), error.wait
            if asked_for is not None and asked_for > _PATIENCE:
                break
            if attempt < asker.retries:
                self._stop.wait(asker.wait_before(attempt, asked_for))
        raise failure

    def _no_answer_error(self, item: Item, error: Unanswered) -> RunError:
        pause = "" if error.wait is None else f", asks for a wait of {error.wait:.0f} s"
        problem = f"gives no answer to {self._inquiry.label(item)} (got {error}{pause})"
        hint = f"{self._inquiry.kept_note}: go on when it is available again."
        where = f"{self._asker.name}, {self._asker.server.base_url}"
        return RunError(str(Fault(where, problem, "a working server", hint)))

    def _raise_unanswered(self, items: int, answered: int, unusable: Sequence[str]) -> None:
        note, noun, name = self._inquiry.kept_note, self._inquiry.noun, self._asker.name
        if unusable:
            problem = f"gives no usable answer to {len(unusable)} of {items} {noun} (got {_few(unusable)})"
            hint = f"{note}: try again, or take another model."
            raise RunError(str(Fault(name, problem, "answers in the requested form", hint)))
        if answered < items:
            problem = f"has reached its limit (got {items - answered} of {items} {noun} without an answer)"
            expected = f"at most {self._asker.max_requests} requests (max_requests), those that fail included"
            hint = f"{note}: raise max_requests, or go on with as many again."
            raise RunError(str(Fault(name, problem, expected, hint)))


def _few(faults: Sequence[str]) -> str:
    more = len(faults) - _FEW
    return "; ".join(faults[:_FEW]) + (f"; and {more} more" if more > 0 else "")
