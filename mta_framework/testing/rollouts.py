"""Responses without a model, to try batch policies with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mta_framework.interfaces import Rollouts
from mta_framework.testing.values import VOCABULARY, random_example
from mta_framework.types import Example, Progress, Responder

_TEXTS, _BATCH = 6, 2


class ScriptedRollouts(Rollouts):
    """A training of ``total_steps`` steps on six texts, two at a step, whose student changes at every step.

    A response depends on prompt, writer and step alone.

    Attributes:
        step: The step at hand; the caller sets it.
    """

    def __init__(self, total_steps: int = 12, seed: int = 7):
        self.seed = seed
        self.steps_per_epoch = _TEXTS // _BATCH
        self.total_steps = total_steps
        self.step = 0
        self._stored: dict[tuple[str, bytes], Example] = {}

    @property
    def progress(self) -> Progress:
        """The steps that are done."""
        return Progress(self.step, self.total_steps, self.step / self.steps_per_epoch)

    def batch(self, step: int) -> list[Example]:
        """What the data give to a step."""
        order = np.random.default_rng((self.seed, step // self.steps_per_epoch)).permutation(_TEXTS)
        place = step % self.steps_per_epoch * _BATCH
        return [self._text(int(row), 0, False) for row in order[place : place + _BATCH]]

    def respond(self, prompts: Sequence[Example], by: Responder, temperature: float) -> list[Example]:
        """As promised by ``Rollouts``."""
        assert temperature > 0
        return [self._response(prompt, by) for prompt in prompts]

    def respond_cached(
        self, prompts: Sequence[Example], by: Responder, temperature: float, state: str
    ) -> list[Example]:
        """As promised by ``Rollouts``."""
        found = []
        for prompt in prompts:
            key = state, prompt.prompt_ids.tobytes()
            if key not in self._stored:
                assert state == self.model_state(by), "responses of a model that has changed since are asked for"
                self._stored[key] = self._response(prompt, by)
            found.append(self._stored[key])
        return found

    def model_state(self, by: Responder) -> str:
        """As promised by ``Rollouts``; the teacher's never changes."""
        return "teacher" if by == "teacher" else f"student {self.step}"

    def upcoming(self, steps: int) -> list[Example]:
        """As promised by ``Rollouts``."""
        texts = [
            text for step in range(self.step, min(self.step + steps, self.total_steps)) for text in self.batch(step)
        ]
        return list({text.prompt_ids.tobytes(): text for text in texts}.values())

    def _response(self, prompt: Example, by: Responder) -> Example:
        return self._text(int(prompt.input_ids[0]), 1 + self.step if by == "student" else 1000, by == "student")

    def _text(self, row: int, seed: int, by_student: bool) -> Example:
        """The prompt tells the rows apart, the seed the responses."""
        text = random_example(row % 3 + 4, 2, seed=VOCABULARY * seed + row, spans={"words": [(2, 4)]})
        input_ids = text.input_ids.copy()
        input_ids[:2] = row
        return replace(text, input_ids=input_ids, by_student=by_student, prompt_text=f"prompt {row}")
