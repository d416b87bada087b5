"""Sums an evaluation up: means over prompts, then mean, deviation and confidence interval over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mta_framework.evaluation.predictions import Prediction
from mta_framework.evaluation.report import ReportedEvaluation, ReportedMetric, ReportedSet, SampleResponses, Score
from mta_framework.evaluation.statistics import PromptScores, interval
from mta_framework.storage import json_digest
from mta_framework.types import MeanKind

SAMPLES = 3


@dataclass(frozen=True)
class SetResult:
    """The predictions of one model on one set under one seed.

    Args:
        model: Name of the model.
        set: Name of the set.
        seed: Sampling seed.
        cut: Number of prompts that were shortened.
        predictions: One per prompt, in the order of the set.
    """

    model: str
    set: str
    seed: int
    cut: int
    predictions: tuple[Prediction, ...]

    def mean(self, metric: ReportedMetric) -> float:
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
    """The results of all models, sets and seeds, in the order of the spec, and the metrics."""

    results: tuple[SetResult, ...]
    metrics: tuple[ReportedMetric, ...]


def aggregate(evaluation: Evaluation) -> ReportedEvaluation:
    """The table of scores (with an average over the sets where there are several), counts and sample responses."""
    models: dict[str, dict[str, list[SetResult]]] = {}
    for result in evaluation.results:
        models.setdefault(result.model, {}).setdefault(result.set, []).append(result)
    scores = [
        score
        for metric in evaluation.metrics
        for model, sets in models.items()
        for score in _scores(model, sets, metric)
    ]
    sets_reported = [_reported_set(over_seeds) for sets in models.values() for over_seeds in sets.values()]
    # Of each set the results of all models under the first seed.
    first = zip(*([over_seeds[0] for over_seeds in sets.values()] for sets in models.values()), strict=True)
    seeds = dict.fromkeys(result.seed for result in evaluation.results)
    return ReportedEvaluation(
        tuple(seeds), tuple(scores), tuple(sets_reported), _samples(list(first)), evaluation.metrics
    )


def prompt_scores(metric: ReportedMetric, over_seeds: Sequence[Sequence[Prediction]]) -> PromptScores:
    """The scores of one model on one set, as arrays that statistics are computed from.

    Args:
        metric: Metric whose scores are taken.
        over_seeds: Predictions under each seed, in the same order of prompts.
    """
    label = metric.label
    scores_SP = np.array([[row.scores[label] for row in rows] for rows in over_seeds], dtype=np.float64)
    weighted = any(label in row.weights for rows in over_seeds for row in rows)
    weights = [[row.weights.get(label, 1.0) for row in rows] for rows in over_seeds] if weighted else None
    return PromptScores(scores_SP, None if weights is None else np.array(weights, dtype=np.float64), metric.mean)


def rows_digest(predictions: Sequence[Prediction]) -> str:
    """A digest of questions and references: equal where two evaluations used the same rows, whatever the template."""
    return json_digest([[row.question, list(row.references)] for row in predictions])


def mean_over_prompts(scores: Sequence[float], weights: Sequence[float], kind: MeanKind) -> float:
    """Weighted mean, arithmetic or geometric; NaN without scores.

    It is unweighted where all weights are 0, which scoring refuses; runs of earlier versions may have such scores.
    """
    if not scores:
        return float("nan")
    weights = weights if any(weights) else [1.0] * len(scores)
    values = [math.log(score) for score in scores] if kind == "geometric" else scores
    mean = math.fsum(w * value for w, value in zip(weights, values, strict=True)) / math.fsum(weights)
    return math.exp(mean) if kind == "geometric" else mean


def _scores(model: str, sets: Mapping[str, Sequence[SetResult]], metric: ReportedMetric) -> Iterator[Score]:
    """One model's cells of the table: each set, then the average where there are several."""
    for name, over_seeds in sets.items():
        yield _score(model, name, metric, [over_seeds])
    if len(sets) > 1:
        yield _score(model, None, metric, list(sets.values()))


def _score(model: str, entry: str | None, metric: ReportedMetric, over_sets: Sequence[Sequence[SetResult]]) -> Score:
    means = [[row.mean(metric) for row in over_seeds] for over_seeds in over_sets]
    per_seed = [statistics.fmean(column) for column in zip(*means, strict=True)]
    deviation = statistics.stdev(per_seed) if len(per_seed) > 1 else None
    ends = interval([prompt_scores(metric, [row.predictions for row in over_seeds]) for over_seeds in over_sets])
    known = None if ends is None or any(map(math.isnan, ends)) else ends
    unscored = sum(_unscored(metric.label, over_seeds) for over_seeds in over_sets)
    return Score(model, entry, metric.label, tuple(per_seed), statistics.fmean(per_seed), deviation, known, unscored)


def _unscored(label: str, over_seeds: Sequence[SetResult]) -> int:
    """Number of prompts that have weight 0 under every seed."""
    rows = zip(*(result.predictions for result in over_seeds), strict=True)
    return sum(not any(row.weights.get(label, 1.0) for row in over) for over in rows)


def _reported_set(over_seeds: Sequence[SetResult]) -> ReportedSet:
    one = over_seeds[0]
    finished = statistics.fmean(row.finished for row in over_seeds)
    digests = rows_digest(one.predictions), json_digest([row.prompt for row in one.predictions])
    return ReportedSet(one.model, one.set, len(one.predictions), one.cut, finished, *digests)


def _samples(by_set: Sequence[Sequence[SetResult]]) -> tuple[SampleResponses, ...]:
    """The first rows of each set in turn: no choice that could flatter a model."""
    longest = max(len(results[0].predictions) for results in by_set)
    rows = [(results, row) for row in range(longest) for results in by_set if row < len(results[0].predictions)]
    samples = []
    for results, row in rows[:SAMPLES]:
        one = results[0].predictions[row]
        responses = {result.model: result.predictions[row].prediction for result in results}
        samples.append(SampleResponses(results[0].set, one.prompt, one.references[0], responses))
    return tuple(samples)
