"""What an evaluation yields. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Prediction:
    """A prompt, the response to it, what it is compared to, whether it came to an end, and its score by metric."""

    prompt: str
    prediction: str
    references: tuple[str, ...]
    finished: bool
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SetResult:
    """The predictions of one model on one set with one seed, in the order of the set.

    Args:
        model: Name of the model.
        set: Name of the set.
        seed: Sampling seed.
        cut: How many prompts were cut on the left to fit.
        predictions: One per prompt.
    """

    model: str
    set: str
    seed: int
    cut: int
    predictions: tuple[Prediction, ...]

    def mean(self, metric: str) -> float:
        """Mean score over the prompts; NaN without prompts."""
        scores = [prediction.scores[metric] for prediction in self.predictions]
        return sum(scores) / len(scores) if scores else float("nan")

    @property
    def finished(self) -> float:
        """Share of the responses that came to an end by themselves; NaN without prompts."""
        ended = [prediction.finished for prediction in self.predictions]
        return sum(ended) / len(ended) if ended else float("nan")


@dataclass(frozen=True)
class Evaluation:
    """All results, by model, set and seed in the order of the spec, and the labels of the metrics."""

    results: tuple[SetResult, ...]
    metrics: tuple[str, ...]
