"""What an evaluation yields. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mta_framework.evaluation.report import MetricFacts
from mta_framework.types import MeanKind


@dataclass(frozen=True)
class Prediction:
    """The response to a prompt.

    Args:
        prompt: The whole prompt, before any cut.
        question: What was asked: instruction and input, without the template around them.
        prediction: The response.
        references: What it is compared to.
        finished: Whether it came to an end by itself.
        tokens: How many tokens it has, without the end token.
        scores: Label of the metric -> score.
        weights: Label of the metric -> how much the score counts in the mean over prompts; only of metrics that say so.
    """

    prompt: str
    question: str
    prediction: str
    references: tuple[str, ...]
    finished: bool
    tokens: int
    scores: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)


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

    def mean(self, metric: MetricFacts) -> float:
        """Mean score over the prompts, as the metric has it; NaN without prompts."""
        scores = [prediction.scores[metric.label] for prediction in self.predictions]
        weights = [prediction.weights.get(metric.label, 1.0) for prediction in self.predictions]
        return mean_over_prompts(scores, weights, metric.mean)

    @property
    def finished(self) -> float:
        """Share of the responses that came to an end by themselves; NaN without prompts."""
        ended = [prediction.finished for prediction in self.predictions]
        return sum(ended) / len(ended) if ended else float("nan")


@dataclass(frozen=True)
class Evaluation:
    """All results, by model, set and seed in the order of the spec, and what there is to know of the metrics."""

    results: tuple[SetResult, ...]
    metrics: tuple[MetricFacts, ...]


def mean_over_prompts(scores: Sequence[float], weights: Sequence[float], kind: MeanKind) -> float:
    """Weighted mean, arithmetic or geometric; of scores that are all without weight the plain one; NaN without any."""
    if not scores:
        return float("nan")
    weights = weights if any(weights) else [1.0] * len(scores)
    values = [math.log(score) for score in scores] if kind == "geometric" else scores
    mean = math.fsum(w * value for w, value in zip(weights, values, strict=True)) / math.fsum(weights)
    return math.exp(mean) if kind == "geometric" else mean
