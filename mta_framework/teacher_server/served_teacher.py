"""The teacher of a run that is behind a server: answers from what is kept, and asks for texts that are not."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from mta_framework.endpoints.asker import Asker, Inquiry
from mta_framework.models.teacher_states import Teacher
from mta_framework.teacher_cache.kinds import supervised_positions, top_tokens_kind
from mta_framework.teacher_cache.recording import unpacked
from mta_framework.teacher_cache.store import RecordStore
from mta_framework.teacher_server.completions import Completions, answer_fault
from mta_framework.teacher_server.same_tokenizer import compare_decoded, compare_tokenizers
from mta_framework.types import Batch, Example, Head, States, TopTokens

if TYPE_CHECKING:
    from httpx2 import Client

_log = logging.getLogger(__name__)

_ENOUGH_ALIKE = 500
"""Number of tokens that are decoded alike after which no more are compared; the first few may be letters alone."""

_FLUSH_SECONDS = 10.0
"""Answers are written after so long: what a kill costs at most."""

_MOST_DIFFERENCE = 0.5
"""Difference of log-probabilities, in nats, above which a model is another one; rounding in 16 bit makes a tenth."""


class ServedTeacher(Teacher):
    """A teacher behind a server, of which the likeliest tokens alone are known.

    Args:
        completions: The teacher at the server.
        asker: Sends requests.
        tokenizer: Tokenizer of the run, which the server's is held to.
        folder: Folder of the teacher in the cache; every answer is kept there.
    """

    def __init__(self, completions: Completions, asker: Asker, tokenizer: PreTrainedTokenizerBase, folder: Path):
        super().__init__(_no_model)
        self._completions = completions
        self._asker = asker
        self._tokenizer = tokenizer
        self._kind = top_tokens_kind(completions.top_logprobs)
        self._store = RecordStore(folder, self._kind)
        self._store_is_read = False
        self._contact = threading.Lock()
        self._is_compared = False
        self._alike: set[int] | None = None  # tokens that server and tokenizer decode alike, where that is compared
        self._has_warned = False

    def ask(self, texts: Sequence[Example], kept: Example | None = None, unit: str = "") -> None:
        """Ask for texts, longest first, and keep every answer.

        Args:
            texts: Texts that are not kept.
            kept: A text that is, which the server is asked for again, to see whether it still has the same model.
            unit: Unit of the progress bar; empty: no bar is shown.

        Raises:
            RunError: A text could not be answered; all answers that arrived are kept.
        """
        self._read_files()
        text_of = {self._kind.key(text): text for text in texts}
        asked = [key for key, text in text_of.items() if self._kind.num_rows(text)]
        asked.sort(key=lambda key: -len(text_of[key].input_ids))

        def send(client: Client, key: bytes) -> bytes:
            self._compare(client, kept)
            return self._record(client, text_of[key])

        inquiry = Inquiry(send, lambda key: _label(text_of[key]), "texts", "All others are kept", unit)
        # A text without supervised positions has an empty record, and no request.
        rows, since = [(key, b"") for key, text in text_of.items() if not self._kind.num_rows(text)], time.monotonic()
        try:
            for row in self._asker.answers(asked, inquiry) if asked else ():
                rows.append(row)
                if time.monotonic() - since >= _FLUSH_SECONDS:
                    self._keep(rows)
                    rows, since = [], time.monotonic()
        finally:
            self._keep(rows)

    def states(self, batch: Batch, layers: Collection[int]) -> States:
        """The teacher's likeliest tokens on a batch: its records, or answers of the server, which are kept.

        Raises:
            RunError: A text could not be answered.
        """
        records, k = batch.teacher_records, self._completions.top_logprobs
        rows_N2k = self._answers(_texts(batch)) if records is None else records[self._kind.slot]
        rows_N2k = rows_N2k.to(batch.input_ids_BT.device)
        log_prob_NK = rows_N2k[:, k:].contiguous().view(torch.float32)
        top = TopTokens(rows_N2k[:, :k].long(), log_prob_NK, self._completions.vocabulary)
        nothing = log_prob_NK.new_full((1, 1), torch.nan)
        final_BTD = nothing.expand(*batch.input_ids_BT.shape, 1)
        return States(final_BTD, {}, Head(nothing), None, batch.input_ids_BT, batch.attended_A, None, top)

    def _answers(self, texts: Sequence[Example]) -> torch.Tensor:
        """The answers to texts that were not known before training; those that are kept, of an earlier attempt too."""
        self._read_files()
        keys = [self._kind.key(text) for text in texts]
        while missing := [text for key, text in zip(keys, texts, strict=True) if self._store.get(key) is None]:
            self.ask(missing)
        return unpacked([record for key in keys if (record := self._store.get(key)) is not None], self._kind)

    def _keep(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        self._store.add(rows)
        self._store.merge_small()

    def _read_files(self) -> None:
        if not self._store_is_read:
            self._store.refresh()
            self._store_is_read = True

    def _record(self, client: Client, text: Example) -> bytes:
        targets = (supervised_positions(text) + 1).tolist()
        answer = self._completions.ask(client, text.input_ids.tolist(), targets)
        if self._alike is not None and len(self._alike) < _ENOUGH_ALIKE:
            self._alike |= compare_decoded(self._completions, answer.text_of, self._tokenizer)
            if not self._alike and not self._has_warned:
                self._has_warned = True
                where = self._completions.where
                _log.warning("%s: an answer shows nothing but ids by which its tokenizer could be compared", where)
        return np.concatenate([answer.id_NK, answer.log_prob_NK.view(np.int32)], axis=1).tobytes()

    def _compare(self, client: Client, kept: Example | None) -> None:
        """Before the first request, hold the server to the run's tokenizer, and to an answer that is kept."""
        with self._contact:
            if self._is_compared:
                return
            if not compare_tokenizers(client, self._completions, self._tokenizer):
                self._alike = set()
            then = None if kept is None else self._store.get(self._kind.key(kept))
            if kept is not None and then is not None:
                self._asker.count_request()
                now = self._record(client, kept)
                difference = _difference(*(unpacked([memoryview(record)], self._kind) for record in (then, now)))
                if difference > _MOST_DIFFERENCE:
                    problem = f"has another model than before (got log-probabilities that differ by {difference:.2f})"
                    expected = f"the model whose answers are kept in {self._store.folder}"
                    hint = "Give another model another name at the server, or delete the folder."
                    raise answer_fault(self._completions.where, problem, expected, hint)
            self._is_compared = True


def _difference(then_N2k: torch.Tensor, now_N2k: torch.Tensor) -> float:
    """Median over positions of the difference of the likeliest token's log-probability; infinite where it differs."""
    k = then_N2k.shape[1] // 2
    log_probs = [rows[:, k:].contiguous().view(torch.float32)[:, 0] for rows in (then_N2k, now_N2k)]
    difference_N = (log_probs[0] - log_probs[1]).abs()
    return float(torch.where(then_N2k[:, 0] == now_N2k[:, 0], difference_N, torch.inf).median())


def _texts(batch: Batch) -> list[Example]:
    """The texts of a batch, as far as their records depend on them."""
    ids_BT, mask_BT = batch.input_ids_BT.cpu().numpy(), batch.attention_mask_BT.cpu().numpy().astype(bool)
    is_target_BT = np.zeros_like(mask_BT)
    is_target_BT.reshape(-1)[batch.position_N.cpu().numpy() + 1] = True
    index_B = [-1] * len(ids_BT) if batch.index_B is None else batch.index_B.tolist()
    return [
        Example(ids_T[mask_T].astype(np.int32), 1, {}, supervised_T=is_target_T[mask_T], index=index)
        for ids_T, mask_T, is_target_T, index in zip(ids_BT, mask_BT, is_target_BT, index_B, strict=True)
    ]


def _label(text: Example) -> str:
    return f"a text of {len(text.input_ids)} tokens" + (f" (row {text.index + 1})" if text.index >= 0 else "")


def _no_model() -> NoReturn:
    raise AssertionError("a teacher behind a server has no model here, and what needs one is refused before")
