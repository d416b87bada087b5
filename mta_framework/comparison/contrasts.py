"""Rows against their baselines: how much better, how sure, on which prompts; texts where they lie furthest apart."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from mta_framework.comparison.comparability import Common
from mta_framework.comparison.grouping import Group
from mta_framework.comparison.results import Contrast, PromptPair, SideBySide
from mta_framework.comparison.scores import Scores, mean_by_seed, pooled
from mta_framework.evaluation.predictions import Prediction
from mta_framework.evaluation.seed_statistics import seed_difference
from mta_framework.evaluation.statistics import difference, holm

EXAMPLES = 3
"""Number of prompts that the row wins most, and of prompts that it loses most, for each metric and pair of rows."""


def contrasts(
    groups: Sequence[Group], scores: Mapping[str, Scores], common: Common, pairs: Sequence[PromptPair]
) -> Iterator[Contrast]:
    """Compare every row that has a baseline with it, by metric, then by row, then by set.

    Args:
        groups: The rows.
        scores: Label of each row -> its scores.
        common: The metrics and sets that are compared.
        pairs: The rows and their baselines by prompt.

    Yields:
        Contrasts whose probabilities are corrected over all of a metric.
    """
    by_label = {group.label: group for group in groups}
    outcomes = Counter((pair.metric, pair.row, name, pair.outcome) for pair in pairs for name in (pair.set, None))
    for metric in common.metrics:
        of_metric = []
        for group, baseline in _with_baseline(groups):
            for name in common.columns:
                sides = [by_label[baseline], group]
                gap = difference(*(pooled(scores[side.label], metric, name, common) for side in sides))
                by_seed = (mean_by_seed(side, scores[side.label], metric, name, common) for side in sides)
                wins, ties, losses = (outcomes[metric.label, group.label, name, outcome] for outcome in (1, 0, -1))
                estimate = (gap.value, gap.interval, gap.p, gap.p)
                labels = (metric.label, name, baseline, group.label)
                of_metric.append(Contrast(*labels, *estimate, wins, ties, losses, seed_difference(*by_seed)))
        corrected = holm([entry.p for entry in of_metric])
        yield from (dataclasses.replace(entry, p_holm=p) for entry, p in zip(of_metric, corrected, strict=True))


def prompt_pairs(groups: Sequence[Group], scores: Mapping[str, Scores], common: Common) -> Iterator[PromptPair]:
    """Every prompt of every set under every row that has a baseline, by metric, row and set."""
    for metric in common.metrics:
        for group, baseline in _with_baseline(groups):
            for name in common.sets:
                sides = [pooled(scores[label], metric, name, common)[0] for label in (baseline, group.label)]
                by_prompt = zip(*(side.by_prompt().tolist() for side in sides), strict=True)
                for position, (first, second) in enumerate(by_prompt, start=1):
                    outcome = _outcome(first, second, metric.higher_is_better)
                    yield PromptPair(metric.label, name, position, baseline, group.label, first, second, outcome)


def examples(pairs: Sequence[PromptPair], groups: Sequence[Group]) -> Iterator[SideBySide]:
    """The clearest wins, then the clearest losses, of every metric and row: texts of its first run and first seed."""
    by_label = {group.label: group for group in groups}

    @cache
    def responses(label: str, name: str) -> list[Prediction]:
        run = by_label[label].runs[0]
        return run.rows(by_label[label].model, name, run.evaluation.seeds[0])

    for _, of_row in itertools.groupby(pairs, key=lambda pair: (pair.metric, pair.row)):
        for pair in _clearest(list(of_row)):
            first, second = (responses(label, pair.set)[pair.position - 1] for label in (pair.baseline, pair.row))
            prompt = first.question or first.prompt
            yield SideBySide(pair, prompt, first.references[0], first.prediction, second.prediction)


def _with_baseline(groups: Sequence[Group]) -> list[tuple[Group, str]]:
    return [(group, group.baseline) for group in groups if group.baseline is not None]


def _outcome(first: float, second: float, higher_is_better: bool) -> int:
    if math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-12):
        return 0
    return 1 if (second > first) == higher_is_better else -1


def _clearest(pairs: Sequence[PromptPair]) -> Iterator[PromptPair]:
    by_gap = sorted(pairs, key=lambda pair: -abs(pair.row_score - pair.baseline_score))
    for outcome in (1, -1):
        yield from [pair for pair in by_gap if pair.outcome == outcome][:EXAMPLES]
