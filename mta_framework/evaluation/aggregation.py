"""Sums an evaluation up: means over prompts, then mean and deviation over seeds, and how sure they are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

import numpy as np

from mta_framework.evaluation.predictions import digest
from mta_framework.evaluation.report import EvaluationFacts, MetricFacts, SampleResponses, Score, SetFacts
from mta_framework.evaluation.set_results import Evaluation, Prediction, SetResult
from mta_framework.evaluation.statistics import PromptScores, interval

SAMPLES = 3


def aggregate(evaluation: Evaluation) -> EvaluationFacts:
    """The scores table (with the average over the sets where there are several), counts and sample responses."""
    results = evaluation.results
    models, sets, seeds = (_distinct(getattr(row, name) for row in results) for name in ("model", "set", "seed"))
    by_place = {(row.model, row.set, row.seed): row for row in results}
    scores = []
    for metric in evaluation.metrics:
        for model in models:
            rows = {entry: [by_place[model, entry, seed] for seed in seeds] for entry in sets}
            scores += [_score(model, entry, metric, [row]) for entry, row in rows.items()]
            if len(sets) > 1:
                scores.append(_score(model, None, metric, list(rows.values())))
    facts = [_set_facts([by_place[model, entry, seed] for seed in seeds]) for model in models for entry in sets]
    first = {entry: [by_place[model, entry, seeds[0]] for model in models] for entry in sets}
    samples = tuple(_samples(list(first.values())))
    return EvaluationFacts(tuple(seeds), tuple(scores), tuple(facts), samples, evaluation.metrics)


def prompt_scores(metric: MetricFacts, over_seeds: Sequence[Sequence[Prediction]]) -> PromptScores:
    """The scores of one model on one set, as statistics are computed from them.

    Args:
        metric: Which score, and how it is averaged.
        over_seeds: For each seed the predictions, in the same order.
    """
    label = metric.label
    scores_SP = np.array([[row.scores[label] for row in rows] for rows in over_seeds], dtype=np.float64)
    weighted = any(label in row.weights for rows in over_seeds for row in rows)
    weights = [[row.weights.get(label, 1.0) for row in rows] for rows in over_seeds] if weighted else None
    return PromptScores(scores_SP, None if weights is None else np.array(weights, dtype=np.float64), metric.mean)


def rows_digest(predictions: Sequence[Prediction]) -> str:
    """The same where two evaluations are of the same rows: questions and references, whatever template is around."""
    return digest([[row.question, list(row.references)] for row in predictions])


def _distinct(values: Iterable) -> list:
    return list(dict.fromkeys(values))


def _score(model: str, entry: str | None, metric: MetricFacts, over_sets: Sequence[Sequence[SetResult]]) -> Score:
    """The cell of one set, or of the average over several."""
    means = [[row.mean(metric) for row in over_seeds] for over_seeds in over_sets]
    per_seed = [statistics.fmean(column) for column in zip(*means, strict=True)]
    deviation = statistics.stdev(per_seed) if len(per_seed) > 1 else None
    parts = [prompt_scores(metric, [row.predictions for row in over_seeds]) for over_seeds in over_sets]
    ends = interval(parts)
    known = None if ends is None or any(map(math.isnan, ends)) else ends
    return Score(model, entry, metric.label, tuple(per_seed), statistics.fmean(per_seed), deviation, known)


def _set_facts(over_seeds: Sequence[SetResult]) -> SetFacts:
    one = over_seeds[0]
    finished = statistics.fmean(row.finished for row in over_seeds)
    return SetFacts(one.model, one.set, len(one.predictions), one.cut, finished, rows_digest(one.predictions))


def _samples(by_set: Sequence[Sequence[SetResult]]) -> list[SampleResponses]:
    """Rows from the front, one set after the other in turn; no choice that could flatter a model."""
    deepest = max(len(results[0].predictions) for results in by_set)
    places = [(results, row) for row in range(deepest) for results in by_set if row < len(results[0].predictions)]
    return [_sample(results, row) for results, row in places[:SAMPLES]]


def _sample(results: Sequence[SetResult], row: int) -> SampleResponses:
    one = results[0].predictions[row]
    responses = {result.model: result.predictions[row].prediction for result in results}
    return SampleResponses(results[0].set, one.prompt, one.references[0], responses)
