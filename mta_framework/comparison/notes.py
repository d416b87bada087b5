"""Sentences that belong under every table of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mta_framework.comparison.comparability import Common
from mta_framework.comparison.grouping import Group
from mta_framework.comparison.results import SIGNIFICANT, Row
from mta_framework.comparison.scores import Scores, pooled
from mta_framework.evaluation.report import ReportedMetric
from mta_framework.evaluation.seed_statistics import SeedDifference
from mta_framework.evaluation.statistics import RESAMPLES

DAGGER = "†"
"""Mark of a significant difference."""

SMALLEST_EFFECT = (
    "Smallest effect: the true difference that as many seeds, varying as these do, show with a probability of 80 % "
    "(two-sided, 5 %, not corrected). Smaller ones would often be missed: a high p says nothing about them."
)
"""What the number beside every test over training seeds means."""

BOLD = "Bold: the best of the rows that are compared with each other."
"""What bold means, where there is bold."""


def notes(
    groups: Sequence[Group],
    scores: Mapping[str, Scores],
    rows: Sequence[Row],
    common: Common,
    tests: Sequence[SeedDifference],
) -> Iterator[str]:
    """Whole sentences: what the numbers are, what they cannot say, which differences were accepted.

    Nothing is said of scores where no run was evaluated: the validation outcomes have notes of their own.
    """
    if not common.metrics:
        return
    yield from _scores(rows)
    yield from _training(groups)
    yield from _compared(groups, common, tests)
    yield from _weights(groups, scores, common)
    for difference in common.differences:
        consequence = " It is left out." if difference.where in common.left_out else ""
        yield f"Accepted: {difference.where} differs ({difference}).{consequence}"


def _scores(rows: Sequence[Row]) -> Iterator[str]:
    yield "Mean [95 % bootstrap interval over prompts]; a prompt's scores are averaged over all seeds first."
    spreads: dict[tuple[str, int], list[str]] = {}
    for row in rows:
        cell = next(iter(row.cells.values()))
        spreads.setdefault((cell.over, cell.count), []).append(row.label)
    for (over, count), labels in spreads.items():
        of_rows = "" if len(spreads) == 1 else f" of {', '.join(labels)}"
        if count > 1:
            yield f"±{of_rows}: standard deviation over {count} {over}."
        else:
            yield f"A single sampling seed{of_rows}: nothing is known of the spread over seeds."


def _training(groups: Sequence[Group]) -> Iterator[str]:
    once = [group for group in groups if not group.reference and len(group.runs) == 1]
    if single := [group.label for group in once if group.runs[0].seed is not None]:
        yield f"Trained once: {', '.join(single)}. How much another training seed would change is unknown."
    if evaluated := [group.label for group in once if group.runs[0].seed is None]:
        reason = "each is a row of its own, also where they differ in their training seed alone"
        yield f"Evaluated without their training: {', '.join(evaluated)}; {reason}."
    if any(len(group.runs) > 1 for group in groups):
        yield "Intervals, p and p (Holm) take the trained models as given; ± tells how much training seeds matter."


def seed_test(tests: Sequence[SeedDifference]) -> str:
    """Name the test over training seeds that was made."""
    paired = {test.paired for test in tests}
    if paired == {False}:
        return "Welch's t-test"
    return "the t-test paired by training seed" + (
        " (Welch's where neither of two rows has all seeds of the other)" if False in paired else ""
    )


def _compared(groups: Sequence[Group], common: Common, tests: Sequence[SeedDifference]) -> Iterator[str]:
    compared = [group for group in groups if group.baseline is not None]
    if not compared:
        yield "No row is compared with another."
        return
    pairs = "; ".join(f"{group.label} with {group.baseline}" for group in compared)
    yield f"Compared: {pairs}."
    count = len(compared) * len(common.columns)
    corrected = f", after Holm's correction over the {count} comparisons of the metric" if count > 1 else ""
    test = f"the paired permutation test ({RESAMPLES:,} random swaps)"
    seeds = f", and p (seeds) < {SIGNIFICANT} in the same direction where there is one" if tests else ""
    yield f"{DAGGER}: differs from what it is compared with, p < {SIGNIFICANT} in {test}{corrected}{seeds}."
    if count * 2 / (RESAMPLES + 1) >= SIGNIFICANT:  # Holm's factor times the smallest p that so many swaps give
        yield f"So many comparisons leave no p (Holm) below {SIGNIFICANT}: compare fewer rows or sets at once."
    if tests:
        yield f"p (seeds): {seed_test(tests)}, over the means of single runs, not corrected."
        yield SMALLEST_EFFECT
    by_label = {group.label: group for group in groups}
    for group in compared:
        baseline = by_label[str(group.baseline)]
        alone = ", ".join(map(str, sorted(_seeds(group) ^ _seeds(baseline))))
        if alone and min(len(group.runs), len(baseline.runs)) > 1:
            reason = "the difference and p take all runs, p (seeds) those of seeds that both have, if it is paired"
            yield f"Not both of {group.label} and {group.baseline} were trained from seed {alone}: {reason}."
        if group.beyond_alignment:
            fields = ", ".join(group.beyond_alignment)
            yield f"{group.label} differs from {group.baseline} in more than alignment: {fields}."


def _seeds(group: Group) -> set[int]:
    return {run.seed for run in group.runs if run.seed is not None}


def _weights(groups: Sequence[Group], scores: Mapping[str, Scores], common: Common) -> Iterator[str]:
    """A warning where a metric weights prompts by tokens, and these are of different tokenizers."""
    for metric in common.metrics:
        unlike = [
            f"{group.label} and {group.baseline}"
            for group in groups
            if group.baseline is not None and _unlike(scores[group.label], scores[group.baseline], metric, common)
        ]
        if unlike:
            reason = "where that comes from different tokenizers, their scores cannot be compared"
            yield f"{metric.label} gives prompts other weights in {'; '.join(unlike)}: {reason}."


def _unlike(first: Scores, second: Scores, metric: ReportedMetric, common: Common) -> bool:
    sides = [[part.weight_by_prompt() for part in pooled(side, metric, None, common)] for side in (first, second)]
    pairs = [(one, another) for one, another in zip(*sides, strict=True) if one is not None and another is not None]
    return not all(np.allclose(one, another) for one, another in pairs)
