"""Rollouts without a model, for tests of batch policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mta_framework.interfaces import Rollouts
from mta_framework.testing.values import VOCABULARY, random_example
from mta_framework.types import Example, Progress, Responder

_TEXTS, _BATCH = 6, 2


class ScriptedRollouts(Rollouts):
    """Imitates a training on six texts, two per step, with a student that changes at every step.

    A response depends on prompt, responder and step alone.

    Args:
        total_steps: Number of optimiser steps of the training.
        seed: Seed of the run.

    Attributes:
        step: Number of finished steps; set it before each draw.
        temperatures: Temperatures at which responses were requested so far.
    """

    def __init__(self, total_steps: int = 12, seed: int = 7):
        self.seed = seed
        self.steps_per_epoch = _TEXTS // _BATCH
        self.total_steps = total_steps
        self.step = 0
        self.temperatures = set[float]()
        self._cache: dict[tuple[str, bytes], Example] = {}

    @property
    def progress(self) -> Progress:
        """Progress at ``step``."""
        return Progress(self.step, self.total_steps, self.step / self.steps_per_epoch)

    def batch(self, step: int) -> list[Example]:
        """Draw the batch of a step from the data."""
        order = np.random.default_rng((self.seed, step // self.steps_per_epoch)).permutation(_TEXTS)
        first = step % self.steps_per_epoch * _BATCH
        return [self._text(int(row), 0, False) for row in order[first : first + _BATCH]]

    def respond(self, prompts: Sequence[Example], by: Responder, temperature: float) -> list[Example]:
        """Respond to each prompt (see ``Rollouts``)."""
        assert temperature > 0
        self.temperatures.add(temperature)
        return [self._response(prompt, by) for prompt in prompts]

    def respond_cached(
        self, prompts: Sequence[Example], by: Responder, temperature: float, model_state: str
    ) -> list[Example]:
        """Respond from memory (see ``Rollouts``)."""
        self.temperatures.add(temperature)
        responses = []
        for prompt in prompts:
            key = model_state, prompt.prompt_ids.tobytes()
            if key not in self._cache:
                assert model_state == self.model_state(by), "the model has changed since these responses were requested"
                self._cache[key] = self._response(prompt, by)
            responses.append(self._cache[key])
        return responses

    def model_state(self, by: Responder) -> str:
        """Identify a model's weights (see ``Rollouts``); the teacher never changes."""
        return "teacher" if by == "teacher" else f"student {self.step}"

    def upcoming(self, steps: int) -> list[Example]:
        """List the texts of the next steps (see ``Rollouts``)."""
        texts = [
            text for step in range(self.step, min(self.step + steps, self.total_steps)) for text in self.batch(step)
        ]
        return list({text.prompt_ids.tobytes(): text for text in texts}.values())

    def _response(self, prompt: Example, by: Responder) -> Example:
        return self._text(int(prompt.input_ids[0]), 1 + self.step if by == "student" else 1000, by == "student")

    def _text(self, row: int, seed: int, by_student: bool) -> Example:
        """A text whose prompt depends on ``row`` and whose response depends on ``seed`` too."""
        text = random_example(row % 3 + 4, 2, seed=VOCABULARY * seed + row, spans={"words": [(2, 4)]})
        input_ids = text.input_ids.copy()
        input_ids[:2] = row
        log_probs = (-np.abs(input_ids[2:]) / 8).astype(np.float32) if by_student else None
        label = f"prompt {row}"
        return replace(text, input_ids=input_ids, by_student=by_student, prompt_text=label, log_probs=log_probs)
