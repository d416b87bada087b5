"""Rows against their baselines: how much better, how sure, and on which prompts."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from mta_framework.comparison.comparability import Common
from mta_framework.comparison.grouping import Group
from mta_framework.comparison.results import Contrast, PromptPair
from mta_framework.comparison.scores import Scores, pooled, run_means
from mta_framework.evaluation.report import MetricFacts
from mta_framework.evaluation.statistics import difference, holm, welch


def contrasts(groups: Sequence[Group], scores: Mapping[str, Scores], common: Common) -> list[Contrast]:
    """By metric, then by row, then by set; corrected over all of a metric."""
    found = []
    for metric in common.metrics:
        of_metric = [entry for group in groups for entry in _of_row(group, scores, metric, common)]
        corrected = holm([entry.p for entry in of_metric])
        found += [dataclasses.replace(entry, p_holm=p) for entry, p in zip(of_metric, corrected, strict=True)]
    return found


def pairs(groups: Sequence[Group], scores: Mapping[str, Scores], common: Common) -> list[PromptPair]:
    """Every prompt of every set under every row that has a baseline, by metric, row and set."""
    return [
        pair
        for metric in common.metrics
        for group in groups
        for name in common.sets
        for pair in _by_prompt(group, scores, metric, name, common)
    ]


def _of_row(group: Group, scores: Mapping[str, Scores], metric: MetricFacts, common: Common) -> Iterator[Contrast]:
    if group.baseline is None:
        return
    by_set: dict[str | None, list[PromptPair]] = {
        name: list(_by_prompt(group, scores, metric, name, common)) for name in common.sets
    }
    if len(by_set) > 1:
        by_set[None] = [pair for found in by_set.values() for pair in found]
    for name, found in by_set.items():
        sides = [scores[label] for label in (group.baseline, group.label)]
        gap = difference(*(pooled(side, metric, name, common) for side in sides))
        p_seeds = welch(*(run_means(side, metric, name, common) for side in sides))
        outcomes = Counter(pair.outcome for pair in found)
        counts = (outcomes[1], outcomes[0], outcomes[-1])
        whose = (metric.label, name, group.baseline, group.label)
        yield Contrast(*whose, gap.value, gap.interval, gap.p, gap.p, *counts, p_seeds)


def _by_prompt(
    group: Group, scores: Mapping[str, Scores], metric: MetricFacts, name: str, common: Common
) -> Iterator[PromptPair]:
    if group.baseline is None:
        return
    sides = [pooled(scores[label], metric, name, common)[0].by_prompt() for label in (group.baseline, group.label)]
    for number, (first, second) in enumerate(zip(*(side.tolist() for side in sides), strict=True), start=1):
        outcome = _outcome(first, second, metric.higher_is_better)
        yield PromptPair(metric.label, name, number, group.baseline, group.label, first, second, outcome)


def _outcome(first: float, second: float, higher_is_better: bool) -> int:
    if math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-12):
        return 0
    return 1 if (second > first) == higher_is_better else -1
