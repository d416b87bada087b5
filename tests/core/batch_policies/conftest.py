"""A training without models: texts that say where they come from, and a driver that goes through steps."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field

import numpy as np
import pytest

from mta_framework import Example, Progress, Rollouts, RunError

DATA, TEACHER, STUDENT = 1, 2, 3
BATCH = 2


def example(prompt, *response, by_student=False):
    """A text whose prompt is ``prompt``, repeated, so that prompts differ in length; one span, or none."""
    length = prompt % 3 + 1
    pairs = [] if prompt % 4 == 0 else [[length, length + 2]]
    spans = {"words": np.array(pairs, np.int32).reshape(-1, 2)}
    ids = np.array([100 + prompt] * length + list(response), np.int32)
    offsets = np.array([[offset, offset + 1] for offset in range(length)], np.int32)
    return Example(ids, length, spans, by_student, f"prompt {prompt}", offsets)


def origin(text):
    """Prompt, prompt that was answered, writer, and the step or model at which it was written."""
    prompt, (answered, writer, when) = text.input_ids[0] - 100, text.input_ids[text.prompt_length :]
    return int(prompt), int(answered), int(writer), int(when)


@dataclass
class FakeRollouts(Rollouts):
    """The student changes at every step, the teacher never; ``disk`` outlives the process."""

    texts: int = 6
    total_steps: int = 12
    seed: int = 7
    disk: dict = field(default_factory=dict)
    step: int = 0
    calls: list = field(default_factory=list)

    @property
    def steps_per_epoch(self):
        return self.texts // BATCH

    def batch(self, step):
        epoch, index = divmod(step, self.steps_per_epoch)
        order = list(range(self.texts))
        random.Random(f"{self.seed} order {epoch}").shuffle(order)
        return [example(row, row, DATA, 0) for row in order[index * BATCH :][:BATCH]]

    def respond(self, prompts, by, temperature):
        assert temperature > 0
        self.calls.append((self.step, by, temperature))
        return [self._answer(text, by, self.step) for text in prompts]

    def respond_cached(self, prompts, by, temperature, model_state):
        missing = [text for text in prompts if (model_state, self._row(text)) not in self.disk]
        if missing and model_state != self.model_state(by):
            raise RunError("responses are missing")
        self.calls += [(self.step, by, temperature, len(missing))] if missing else []
        for text in missing:
            self.disk[model_state, self._row(text)] = self._answer(text, by, self.step)
        return [self.disk[model_state, self._row(text)] for text in prompts]

    def model_state(self, by):
        return "teacher" if by == "teacher" else f"student {self.step}"

    def upcoming(self, steps):
        last = min(self.step + steps, self.total_steps)
        texts = {self._row(text): text for step in range(self.step, last) for text in self.batch(step)}
        return list(texts.values())

    def _row(self, text):
        return int(text.input_ids[0]) - 100

    def _answer(self, text, by, step):
        row = self._row(text)
        return example(row, row, STUDENT if by == "student" else TEACHER, step, by_student=by == "student")


def run(policy, rollouts, steps, losses=()):
    """Draw the given steps; ``losses`` has the validation loss after each epoch, and before the first step."""
    drawn = []
    for step in steps:
        rollouts.step = step
        if losses and step % rollouts.steps_per_epoch == 0:
            policy.observe_validation(losses[step // rollouts.steps_per_epoch])
        progress = Progress(step, rollouts.total_steps, step / rollouts.steps_per_epoch)
        drawn.append(policy.draw(rollouts.batch(step), rollouts, progress))
    return drawn


def resumed(policy, options):
    """A new policy that goes on from what a checkpoint keeps of the old one."""
    state = json.loads(json.dumps(policy.state(), allow_nan=False))
    successor = options.create()
    successor.restore(state)
    assert successor.state() == state
    return successor


def content(drawn):
    """All that is trained on, in plain values."""
    return [
        [(t.input_ids.tolist(), t.prompt_length, t.by_student, {k: v.tolist() for k, v in t.spans.items()}) for t in b]
        for b in drawn
    ]


@dataclass(frozen=True)
class Tools:
    """What the tests share: files in this folder can't import each other."""

    rollouts = FakeRollouts
    run = staticmethod(run)
    resumed = staticmethod(resumed)
    content = staticmethod(content)
    origin = staticmethod(origin)
    writers = staticmethod(lambda drawn: [{origin(text)[2] for text in texts} for texts in drawn])


@pytest.fixture(scope="session")
def tools():
    return Tools()
