"""Pairs of a teacher and a student response to every prompt, written in bulk at intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, JsonValue, model_validator

from mta_framework.errors import RunError
from mta_framework.interfaces import BatchPolicy, PluginParams, Rollouts
from mta_framework.types import Example, Progress, Responder


class PairedBatches(PluginParams):
    """Train on a teacher and a student response to every prompt, written anew at intervals."""

    policy: Literal["pairs"] = Field("pairs", description="A teacher and a student response to every prompt.")
    every_epochs: int | None = Field(
        1, ge=1, description="Epochs from one generation to the next; null, and by default so, with every_steps."
    )
    every_steps: int | None = Field(None, ge=1, description="Steps from one generation to the next.")
    temperature: float = Field(0.8, gt=0, description="Of the sampling of both models.")

    @model_validator(mode="before")
    @classmethod
    def _steps_instead_of_epochs(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("every_steps") is not None:
            return {"every_epochs": None, **given}
        return given

    @model_validator(mode="after")
    def _one_interval(self) -> PairedBatches:
        if (self.every_epochs is None) == (self.every_steps is None):
            both = f"got {self.every_epochs or 'null'} and {self.every_steps or 'null'}"
            raise ValueError(f"exactly one of every_epochs and every_steps must be given ({both})")
        return self

    def create(self) -> BatchPolicy:
        """A new policy for one run."""
        return Pairs(self)


class _Interval(BaseModel):
    """The step that it began with, and the models as they were then."""

    since: int
    models: dict[Responder, str]


class Pairs(BatchPolicy):
    """DistiLLM-2's pairs: at the start of each interval both models answer every prompt that the interval will need.

    Answers are stored by model state and prompt, so a resumed run finds them again, and an unchanged teacher doesn't
    answer twice.

    Source: DistiLLM-2, arXiv 2503.07067, algorithm 1.
    """

    RESPONDERS: ClassVar[tuple[Responder, ...]] = ("teacher", "student")
    TEXTS_PER_PROMPT: ClassVar[int] = 2

    def __init__(self, options: PairedBatches):
        self._options = options
        self._interval: _Interval | None = None
        self._responses: dict[Responder, dict[bytes, Example]] = {}

    def draw(self, batch: Sequence[Example], rollouts: Rollouts, progress: Progress) -> Sequence[Example]:
        """The teacher's responses to the batch's prompts, then the student's: twice as many texts.

        Raises:
            RunError: A prompt of the batch was not among those that the rollouts had announced.
        """
        steps = self._options.every_steps or (self._options.every_epochs or 1) * rollouts.steps_per_epoch
        if self._interval is None or progress.step >= self._interval.since + steps:
            models = {by: rollouts.model_state(by) for by in self.RESPONDERS}
            self._interval = _Interval(since=progress.step, models=models)
            self._responses = {}
        if not self._responses:
            self._load(self._interval, rollouts, self._interval.since + steps - progress.step)
        return [self._response(text, by, progress.step) for by in self.RESPONDERS for text in batch]

    def state(self) -> JsonValue:
        """Since when the present responses are used, and by which models; their text is stored by the rollouts."""
        dumped: JsonValue = self._interval.model_dump(mode="json") if self._interval else None
        return dumped

    def restore(self, state: JsonValue) -> None:
        """Go on from what ``state`` gave; responses are fetched at the next draw."""
        self._interval = None if state is None else _Interval.model_validate(state)
        self._responses = {}

    def _load(self, interval: _Interval, rollouts: Rollouts, steps: int) -> None:
        prompts = {_key(text): text for text in rollouts.upcoming(steps)}
        for by, model in interval.models.items():
            responses = rollouts.stored(list(prompts.values()), by, self._options.temperature, model)
            self._responses[by] = dict(zip(prompts, responses, strict=True))

    def _response(self, text: Example, by: Responder, step: int) -> Example:
        found = self._responses[by].get(_key(text))
        if found is None:
            raise RunError(f"step {step}: the {by} was not asked for a response to a prompt of this batch in time.")
        return found


def _key(text: Example) -> bytes:
    return text.prompt_ids.tobytes()
