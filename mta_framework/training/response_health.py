"""Health of the student's own responses: what is logged of them, and warnings in words where they collapse."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mta_framework.chunked_loss import chunked_values, log_softmax, select_positions, widest_dtype
from mta_framework.types import Batch, Example, States
from mta_framework.types.log_entries import RESPONSE_HEALTH

LENGTH, CUT, DISTINCT, ENTROPY, OVERLAP = RESPONSE_HEALTH

TOP = 16
"""Number of most probable tokens whose overlap between student and teacher is measured."""

MOST_CUT = 0.9
"""Share of responses that are cut off at the limit above which there is a warning."""

LEAST_ENTROPY = 0.05
"""Entropy in nats below which there is a warning."""

LEAST_LENGTH = 1.5
"""Mean number of tokens, the end token included, below which there is a warning: most responses are empty."""

LEAST_SHARE = 0.5
"""Share of their first values below which distinct bigrams and overlap give a warning."""

PATIENCE = 3
"""Number of log entries in a row that a warning needs."""


class ResponseHealth:
    """Measures the responses of the student that steps train on, between two log entries.

    Lengths, ends and bigrams are those of all these responses. Entropy and overlap need the logits: they are measured
    once per log entry, at its first step that trains on such responses.
    """

    def __init__(self) -> None:
        self._counts = [0, 0, 0]  # responses, tokens, responses that were cut off
        self._distinct: list[float] = []
        self._measured: dict[str, float] | None = None
        self._sums: Tensor | None = None

    def begin_step(
        self, responses: Sequence[Example], has_ended: Callable[[Example], bool], device: torch.device | str = "cpu"
    ) -> None:
        """Add the responses of a step, and measure its logits too if none were since the last log entry.

        Args:
            responses: Texts of the global batch whose responses the student wrote.
            has_ended: Whether a response ended before its limit.
            device: Device of the models.
        """
        ids = [text.input_ids[text.prompt_length :] for text in responses]
        added = len(ids), sum(map(len, ids)), sum(not has_ended(text) for text in responses)
        self._counts = [total + count for total, count in zip(self._counts, added, strict=True)]
        bigrams = [np.stack([row[:-1], row[1:]], axis=1) for row in ids if len(row) > 1]
        if bigrams:
            bigram_K2 = np.concatenate(bigrams)
            self._distinct.append(len(np.unique(bigram_K2, axis=0)) / len(bigram_K2))
        if ids and self._measured is None:
            self._sums = torch.zeros(4, dtype=widest_dtype(torch.device(device)), device=device)

    @property
    def is_measuring(self) -> bool:
        """Whether the logits of the present step are measured."""
        return self._sums is not None

    @torch.no_grad()
    def measure(self, student: States, teacher: States | None, batch: Batch) -> None:
        """Add entropy and overlap at the supervised positions of the student's responses, if this step is measured.

        The head is applied in chunks, and two numbers per position are kept.

        Args:
            student: The student's states on the micro-batch.
            teacher: The teacher's; None without one. With another tokenizer, or behind a server, no overlap is
                measured.
            batch: The micro-batch.
        """
        if self._sums is None or batch.by_student_B is None:
            return
        position_N = batch.position_N[batch.row_by_student]
        has_logits = teacher is not None and teacher.top_tokens is None and batch.teacher is None
        comparable = select_positions(teacher, position_N) if teacher is not None and has_logits else None
        values_N2 = chunked_values(entropy_and_overlap, select_positions(student, position_N), comparable)
        self._sums[:2] += values_N2.sum(0, dtype=self._sums.dtype)
        self._sums[2] += len(values_N2)
        self._sums[3] += len(values_N2) if comparable is not None else 0

    def end_step(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """End a step; every process takes part where it is measured.

        Args:
            reduce: Sums a tensor over all processes.
        """
        if self._sums is None:
            return
        entropy, overlap, positions, compared = reduce(self._sums).tolist()
        self._sums, self._measured = None, {}
        if positions:
            self._measured[ENTROPY] = entropy / positions
        if compared:
            self._measured[OVERLAP] = overlap / compared

    def pop(self) -> dict[str, float]:
        """Return what was measured since the last call, empty without responses of the student, and start over."""
        count, tokens, cut = self._counts
        values = {LENGTH: tokens / count, CUT: cut / count} if count else {}
        if self._distinct:
            values[DISTINCT] = sum(self._distinct) / len(self._distinct)
        values |= self._measured or {}
        self._counts, self._distinct, self._measured = [0, 0, 0], [], None
        return values

    def state(self) -> dict[str, Any]:
        """Return everything as JSON, for a checkpoint."""
        return {"counts": self._counts, "distinct": list(self._distinct), "measured": self._measured}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state`` returned."""
        self._counts, self._distinct = list(state["counts"]), list(state["distinct"])
        self._measured = state["measured"]


def entropy_and_overlap(student_logits: Tensor, teacher_logits: Tensor | None = None) -> Tensor:
    """Entropy of the student in nats, and the share of its 16 most probable tokens that are the teacher's too.

    Args:
        student_logits: The student's logits, (n, V).
        teacher_logits: The teacher's logits, (n, V); None: the overlap is 0.

    Returns:
        (n, 2), without gradient.

    Source: the overlap is the progress measure of on-policy distillation in arXiv 2604.13016.
    """
    log_q = log_softmax(student_logits)
    entropy = torch.special.entr(log_q.exp()).sum(-1)
    if teacher_logits is None:
        return torch.stack([entropy, torch.zeros_like(entropy)], dim=-1)
    size = min(TOP, student_logits.shape[-1])
    student_top, teacher_top = (logits.topk(size).indices for logits in (student_logits, teacher_logits))
    shared = (student_top[:, :, None] == teacher_top[:, None, :]).any(-1).sum(-1)
    return torch.stack([entropy, shared / size], dim=-1)


def collapse_warnings(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Describe where the responses of the student collapsed, a sentence for each measure that did.

    Args:
        history: Log entries of a training.
    """
    return [message for name, describe in _JUDGES.items() for message in _first_collapse(history, name, describe)]


Judge = Callable[[float, float], str]
"""Given a value and the first one logged, says what is wrong, after "From step N,"; empty where nothing is."""


def _first_collapse(history: Sequence[Mapping[str, Any]], name: str, judge: Judge) -> Iterator[str]:
    entries = [(int(entry["step"]), float(entry[name])) for entry in history if name in entry and "step" in entry]
    problems = [(step, judge(value, entries[0][1])) for step, value in entries]
    for first in range(len(problems) - PATIENCE + 1):
        streak = problems[first : first + PATIENCE]
        if all(problem for _, problem in streak):
            yield f"From step {streak[0][0]:,}, {streak[-1][1]}"
            return


def _length(value: float, _: float) -> str:
    problem = f"most responses of the student are empty ({value:.2f} tokens on average)"
    return f"{problem}. It has learned to end at once." if value < LEAST_LENGTH else ""


def _cut(value: float, _: float) -> str:
    problem = f"{value:.0%} of the student's responses are cut off at the limit"
    hint = "Raise training.generation.max_new_tokens, or train on the data for longer first."
    return f"{problem}. {hint}" if value > MOST_CUT else ""


def _entropy(value: float, _: float) -> str:
    problem = f"the student is certain of nearly every token of its responses (entropy {value:.3f} nats)"
    return f"{problem}. {_LESS}" if value < LEAST_ENTROPY else ""


def _distinct(value: float, first: float) -> str:
    problem = f"the student repeats itself ({value:.0%} of the bigrams of a step are distinct, {first:.0%} at first)"
    return f"{problem}. {_LESS}" if value < LEAST_SHARE * first else ""


def _overlap(value: float, first: float) -> str:
    problem = "student and teacher agree less on the student's responses"
    values = f"{value:.0%} of their {TOP} most probable tokens are the same, {first:.0%} at first"
    return f"{problem} ({values}). {_LESS}" if value < LEAST_SHARE * first else ""


_LESS = "Lower the learning rate, or the share of steps that train on its responses."

_JUDGES: dict[str, Judge] = {
    LENGTH: _length,
    CUT: _cut,
    ENTROPY: _entropy,
    DISTINCT: _distinct,
    OVERLAP: _overlap,
}
