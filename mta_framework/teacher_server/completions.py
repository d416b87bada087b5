"""Asks a completions endpoint for a teacher's likeliest tokens, by vLLM's ``prompt_logprobs``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mta_framework.endpoints.server import Refused, Server, Unanswered
from mta_framework.errors import Fault, RunError

if TYPE_CHECKING:
    from httpx2 import Client

_ENTRY_BYTES = 512
"""Most bytes of one token in a reply: id, log-probability, rank and its text, which may be escaped."""

_OTHER_BYTES = 2**20
_NO_SUCH_PAGE = (404, 405, 501)
_MOST_DIGITS = 10
"""Most digits of an id, which is an int32: Python refuses to read numbers of thousands of them."""

_LOWEST_LOG_PROB = -1e30
_SUM_TOLERANCE = 1e-3
"""Excess over 1 of the sum of rounded probabilities; vLLM computes them in float32."""


@dataclass(frozen=True)
class PromptLogProbs:
    """The likeliest tokens at some positions of a text.

    Args:
        id_NK: int32, ids.
        log_prob_NK: float32, log-probabilities, highest first.
        text_of: Text of tokens by their id, as far as the server gave it.
    """

    id_NK: NDArray[np.int32]
    log_prob_NK: NDArray[np.float32]
    text_of: dict[int, str]


@dataclass(frozen=True)
class Completions:
    """A model at a completions endpoint that gives log-probabilities of the prompt.

    Args:
        server: The server; ``base_url`` ends in ``/v1``.
        model: Name of the model there.
        top_logprobs: Number k of likeliest tokens.
        vocabulary: Size of the model's vocabulary.
        field: Dotted name of the teacher in the spec, for errors.
    """

    server: Server
    model: str
    top_logprobs: int
    vocabulary: int
    field: str = "teacher"

    @property
    def where(self) -> str:
        """Name and URL of the teacher in messages."""
        return f"{self.field}, {self.url}"

    @property
    def url(self) -> str:
        """URL that texts are sent to."""
        return f"{self.server.base_url.rstrip('/')}/completions"

    def ask(self, client: Client, input_ids: Sequence[int], targets: Sequence[int]) -> PromptLogProbs:
        """Ask for the likeliest tokens in place of some tokens of a text.

        Args:
            client: HTTP client of ``server``.
            input_ids: Tokens of the text.
            targets: Positions of the tokens that are predicted, at least one, each at least 1.

        Raises:
            Unanswered: The failure may be temporary.
            RunError: The server refuses the request, or its answer is not about these tokens or no distribution.
        """
        # Temperature 1: some versions of vLLM apply it to these log-probabilities, too.
        body = {"prompt": list(input_ids), "max_tokens": 1, "temperature": 1.0, "prompt_logprobs": self.top_logprobs}
        max_bytes = _OTHER_BYTES + len(input_ids) * (self.top_logprobs + 1) * _ENTRY_BYTES
        content = self.server.post(client, self.url, {"model": self.model, **body}, max_bytes)
        entries = _entries(content)
        if len(entries) != len(input_ids):
            raise self._fault(f"has read other tokens (got {len(entries)} of them)", f"{len(input_ids)} tokens")
        text_of: dict[int, str] = {}
        rows = [self._likeliest(entries[target], input_ids[target], text_of) for target in targets]
        id_NK = np.array([ids for ids, _ in rows], dtype=np.int32)
        log_prob_NK = np.array([log_probs for _, log_probs in rows], dtype=np.float32)
        return PromptLogProbs(id_NK, log_prob_NK, text_of)

    def tokenize(self, client: Client, text: str) -> list[int] | None:
        """Return the ids that the server gives a text without special tokens; None where it offers no tokenizer.

        Args:
            client: HTTP client of ``server``.
            text: The text.

        Raises:
            Unanswered: The failure may be temporary.
            Refused: The server refuses the request.
        """
        url = f"{self.server.base_url.rstrip('/').removesuffix('/v1')}/tokenize"
        body = {"model": self.model, "prompt": text, "add_special_tokens": False}
        try:
            ids = json.loads(self.server.post(client, url, body, _OTHER_BYTES))["tokens"]
        except Refused as error:
            if error.status in _NO_SUCH_PAGE:
                return None
            raise
        except (ValueError, LookupError, TypeError, RecursionError):
            return None
        return ids if isinstance(ids, list) else None

    def _likeliest(self, entry: Any, actual: int, text_of: dict[int, str]) -> tuple[list[int], list[float]]:
        """The k likeliest tokens of a position; the text's own token stands beside them where it is none of these."""
        log_prob_of = dict(self._log_probs(entry, text_of))
        k = self.top_logprobs
        if actual not in log_prob_of:
            raise self._fault("has read other tokens (got another one at some position)", "the tokens that it was sent")
        if len(log_prob_of) == k + 1:
            lowest = min(log_prob_of.values())
            if log_prob_of[actual] > lowest:
                raise self._fault("gives more tokens than asked", f"the {k} likeliest ones")
            del log_prob_of[actual]
        if len(log_prob_of) != k:
            hint = f"Lower {self.field}.server.top_logprobs, or let the server give more: --max-logprobs of vLLM."
            raise self._fault(f"gives another number of tokens (got {len(log_prob_of)})", f"the {k} likeliest", hint)
        if sum(map(math.exp, log_prob_of.values())) > 1 + _SUM_TOLERANCE:
            raise self._fault("gives probabilities whose sum is more than 1", "log-probabilities in nats")
        ids = sorted(log_prob_of, key=lambda index: (-log_prob_of[index], index))
        return ids, [min(0.0, log_prob_of[index]) for index in ids]

    def _log_probs(self, entry: Any, text_of: dict[int, str]) -> Iterator[tuple[int, float]]:
        if not isinstance(entry, dict):
            raise Unanswered("a reply that is not of vLLM's form")
        for key, value in entry.items():
            log_prob = value.get("logprob") if isinstance(value, dict) else None
            is_id = key.isascii() and key.isdigit() and (key == "0" or not key.startswith("0"))
            if not (is_id and isinstance(log_prob, int | float)):
                raise Unanswered("a reply that is not of vLLM's form")
            if not _LOWEST_LOG_PROB <= log_prob <= _SUM_TOLERANCE:
                problem = f"gives what is no log-probability (got {self.server.shown(str(log_prob))})"
                raise self._fault(problem, "finite values of at most 0")
            if len(key) > _MOST_DIGITS or int(key) >= self.vocabulary:
                problem = f"gives a token beyond the teacher's vocabulary (got id {self.server.shown(key)})"
                raise self._fault(problem, f"ids below {self.vocabulary:,}")
            if isinstance(value.get("decoded_token"), str):
                text_of[int(key)] = value["decoded_token"]
            yield int(key), float(log_prob)

    def _fault(self, *parts: str) -> RunError:
        return answer_fault(self.where, *parts)


def answer_fault(
    where: str, problem: str, expected: str, hint: str = "Check that the server has this teacher."
) -> RunError:
    """The error of an answer that no repetition would mend."""
    return RunError(str(Fault(where, problem, expected, hint)))


def _entries(content: bytes) -> list[Any]:
    try:
        choice = json.loads(content)["choices"][0]
        entries = choice["prompt_logprobs"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise Unanswered("a reply that is not of vLLM's form") from None
    if not isinstance(entries, list):
        raise Unanswered("a reply without prompt_logprobs, which vLLM's server gives")
    return entries
