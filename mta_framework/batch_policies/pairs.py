"""A teacher response and a student response to every prompt, written in bulk at intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, JsonValue, model_validator

from mta_framework.errors import RunError
from mta_framework.interfaces import BatchPolicy, BatchPolicyOptions, Rollouts
from mta_framework.types import Example, Progress, Responder


class PairedBatches(BatchPolicyOptions):
    """Options of DistiLLM-2's policy: train on a teacher and a student response to every prompt."""

    policy: Literal["pairs"] = Field("pairs", description="Train on a teacher and a student response to every prompt.")
    every_epochs: int | None = Field(
        1, ge=1, description="Epochs after which the responses are renewed; null (the default) with every_steps."
    )
    every_steps: int | None = Field(
        None, ge=1, description="Steps after which the responses are renewed, instead of every_epochs."
    )
    temperature: float = Field(0.8, gt=0, description="Sampling temperature of both models.")

    @model_validator(mode="before")
    @classmethod
    def _steps_instead_of_epochs(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("every_steps") is not None:
            return {"every_epochs": None, **given}
        return given

    @model_validator(mode="after")
    def _one_interval(self) -> PairedBatches:
        if (self.every_epochs is None) == (self.every_steps is None):
            values = f"got {self.every_epochs or 'null'} and {self.every_steps or 'null'}"
            raise ValueError(f"exactly one of every_epochs and every_steps must be given ({values})")
        return self

    def create(self) -> BatchPolicy:
        """Create the policy of one run."""
        return Pairs(self)


class _Interval(BaseModel):
    """The first step of the interval, and the models' states then."""

    since: int
    models: dict[Responder, str]


class Pairs(BatchPolicy):
    """DistiLLM-2's pairs: at the start of each interval both models respond to all prompts of the interval.

    Responses are cached by model state and prompt: a resumed run finds them again, and an unchanged teacher does not
    respond twice.

    Args:
        options: Interval and temperature.

    Source: DistiLLM-2 (arXiv 2503.07067), algorithm 1.
    """

    RESPONDERS: ClassVar[tuple[Responder, ...]] = ("teacher", "student")
    USES_DATA_RESPONSES = False
    TEXTS_PER_PROMPT: ClassVar[int] = 2

    def __init__(self, options: PairedBatches):
        self._options = options
        self.temperature = options.temperature
        self._interval: _Interval | None = None
        self._responses: dict[Responder, dict[bytes, Example]] = {}

    def draw(self, batch: Sequence[Example], rollouts: Rollouts, progress: Progress) -> Sequence[Example]:
        """Choose the teacher's responses to the batch's prompts, followed by the student's: twice as many texts.

        Raises:
            RunError: ``rollouts.upcoming`` had not listed a prompt of the batch.
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
        """Return the interval's first step and model states; the responses themselves are cached by the rollouts."""
        dumped: JsonValue = self._interval.model_dump(mode="json") if self._interval else None
        return dumped

    def restore(self, state: JsonValue) -> None:
        """Restore the interval; its responses are read from the cache at the next draw."""
        self._interval = None if state is None else _Interval.model_validate(state)
        self._responses = {}

    def _load(self, interval: _Interval, rollouts: Rollouts, steps: int) -> None:
        prompts = {_key(text): text for text in rollouts.upcoming(steps)}
        for by, model in interval.models.items():
            responses = rollouts.respond_cached(list(prompts.values()), by, self._options.temperature, model)
            self._responses[by] = dict(zip(prompts, responses, strict=True))

    def _response(self, text: Example, by: Responder, step: int) -> Example:
        response = self._responses[by].get(_key(text))
        if response is None:
            raise RunError(f"step {step}: there is no response of the {by} to a prompt of this batch")
        return response


def _key(text: Example) -> bytes:
    return text.prompt_ids.tobytes()
