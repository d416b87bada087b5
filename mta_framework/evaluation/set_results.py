"""The results of an evaluation, before they are summed up. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mta_framework.evaluation.report import MetricFacts
from mta_framework.types import MeanKind


@dataclass(frozen=True)
class Prediction:
    """A response with its scores.

    Args:
        prompt: Prompt, before any truncation.
        question: Instruction and input, without the template around them.
        prediction: The model's response.
        references: Texts that the response is compared with.
        finished: Whether the response ended before the token limit.
        tokens: Number of tokens of the response, without the end token.
        scores: Label of the metric -> score.
        weights: Label of the metric -> weight of the score in the mean over prompts; absent labels weigh 1.
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
    """The predictions of one model on one set under one seed.

    Args:
        model: Name of the model.
        set: Name of the set.
        seed: Sampling seed.
        cut: Number of prompts that were truncated on the left.
        predictions: One per prompt, in the order of the set.
    """

    model: str
    set: str
    seed: int
    cut: int
    predictions: tuple[Prediction, ...]

    def mean(self, metric: MetricFacts) -> float:
        """Mean score over the prompts, of the metric's kind of mean; NaN without prompts."""
        scores = [prediction.scores[metric.label] for prediction in self.predictions]
        weights = [prediction.weights.get(metric.label, 1.0) for prediction in self.predictions]
        return mean_over_prompts(scores, weights, metric.mean)

    @property
    def finished(self) -> float:
        """Share of the responses that ended before the token limit; NaN without prompts."""
        ended = [prediction.finished for prediction in self.predictions]
        return sum(ended) / len(ended) if ended else float("nan")


@dataclass(frozen=True)
class Evaluation:
    """The results of all models, sets and seeds, in the order of the spec, with facts about the metrics."""

    results: tuple[SetResult, ...]
    metrics: tuple[MetricFacts, ...]


def mean_over_prompts(scores: Sequence[float], weights: Sequence[float], kind: MeanKind) -> float:
    """Weighted mean, arithmetic or geometric; unweighted where all weights are 0; NaN without scores."""
    if not scores:
        return float("nan")
    weights = weights if any(weights) else [1.0] * len(scores)
    values = [math.log(score) for score in scores] if kind == "geometric" else scores
    mean = math.fsum(w * value for w, value in zip(weights, values, strict=True)) / math.fsum(weights)
    return math.exp(mean) if kind == "geometric" else mean
