"""What the log of a training averages over, kept in checkpoints so that a resumed run logs what a straight one does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mta_framework.training.distiller import LossMeter
from mta_framework.training.response_health import ResponseHealth
from mta_framework.types.log_entries import SHARE_BY_STUDENT


class TrainingMeter:
    """Loss terms, the share of student responses since the last log entry, and the duration of the training.

    Attributes:
        terms: The loss terms of all steps since the last log entry.
        health: The student's own responses in these steps.
    """

    def __init__(self) -> None:
        self.terms = LossMeter()
        self.health = ResponseHealth()
        self._by_student = 0.0
        self._logged_at = 0
        self._seconds_before = 0.0
        self._began = time.perf_counter()

    def add_share_by_student(self, share: float) -> None:
        """Add the share of a step's texts whose response the student wrote."""
        self._by_student += share

    def pop(self, step: int, has_policy: bool) -> dict[str, float]:
        """Return the means since the last call, and start over.

        Args:
            step: Number of finished steps.
            has_policy: Whether a batch policy decides who writes responses, so that their share is reported.
        """
        values = self.terms.pop()
        if has_policy:
            values[SHARE_BY_STUDENT] = self._by_student / max(step - self._logged_at, 1)
        self._by_student, self._logged_at = 0.0, step
        return values | self.health.pop()

    def seconds(self) -> float:
        """Return the duration of the training so far, without steps that an interruption lost."""
        return self._seconds_before + time.perf_counter() - self._began

    def speed(self, steps: int, texts: int) -> dict[str, float]:
        """Return duration and speed of the whole training, under the names that transformers gives them.

        Args:
            steps: Number of finished steps.
            texts: Number of texts in these steps.
        """
        seconds = max(self.seconds(), 1e-9)
        return {
            "train_runtime": round(seconds, 4),
            "train_samples_per_second": round(texts / seconds, 3),
            "train_steps_per_second": round(steps / seconds, 3),
        }

    def state(self) -> dict[str, Any]:
        """Return everything as JSON, for a checkpoint."""
        return {
            "terms": self.terms.state(),
            "health": self.health.state(),
            "by_student": self._by_student,
            "logged_at": self._logged_at,
            "seconds": self.seconds(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state`` returned."""
        self.terms.restore(state["terms"])
        self.health.restore(state["health"])
        self._by_student, self._logged_at = state["by_student"], state["logged_at"]
        self._seconds_before, self._began = state["seconds"], time.perf_counter()
