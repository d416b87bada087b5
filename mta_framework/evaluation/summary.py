"""Sums an evaluation up: means over prompts, then mean and deviation over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from mta_framework.evaluation.report import EvaluationFacts, SampleResponses, Score, SetFacts
from mta_framework.evaluation.results import Evaluation, SetResult

SAMPLES = 3


def summarise(evaluation: Evaluation) -> EvaluationFacts:
    """The scores table (with the average over the sets where there are several), counts and sample responses."""
    results = evaluation.results
    models, sets, seeds = (_distinct(getattr(row, name) for row in results) for name in ("model", "set", "seed"))
    by_place = {(row.model, row.set, row.seed): row for row in results}
    scores = []
    for metric in evaluation.metrics:
        for model in models:
            means = [[by_place[model, entry, seed].mean(metric) for seed in seeds] for entry in sets]
            scores += [_score(model, entry, metric, row) for entry, row in zip(sets, means, strict=True)]
            if len(sets) > 1:
                averages = [statistics.fmean(column) for column in zip(*means, strict=True)]
                scores.append(_score(model, None, metric, averages))
    facts = [_set_facts([by_place[model, entry, seed] for seed in seeds]) for model in models for entry in sets]
    first = {entry: [by_place[model, entry, seeds[0]] for model in models] for entry in sets}
    return EvaluationFacts(tuple(seeds), tuple(scores), tuple(facts), tuple(_samples(list(first.values()))))


def _distinct(values: Iterable) -> list:
    return list(dict.fromkeys(values))


def _score(model: str, entry: str | None, metric: str, per_seed: Sequence[float]) -> Score:
    deviation = statistics.stdev(per_seed) if len(per_seed) > 1 else None
    return Score(model, entry, metric, tuple(per_seed), statistics.fmean(per_seed), deviation)


def _set_facts(over_seeds: Sequence[SetResult]) -> SetFacts:
    one = over_seeds[0]
    finished = statistics.fmean(row.finished for row in over_seeds)
    return SetFacts(one.model, one.set, len(one.predictions), one.cut, finished)


def _samples(by_set: Sequence[Sequence[SetResult]]) -> list[SampleResponses]:
    """Rows from the front, one set after the other in turn; no choice that could flatter a model."""
    deepest = max(len(results[0].predictions) for results in by_set)
    places = [(results, row) for row in range(deepest) for results in by_set if row < len(results[0].predictions)]
    return [_sample(results, row) for results, row in places[:SAMPLES]]


def _sample(results: Sequence[SetResult], row: int) -> SampleResponses:
    one = results[0].predictions[row]
    responses = {result.model: result.predictions[row].prediction for result in results}
    return SampleResponses(results[0].set, one.prompt, one.references[0], responses)
