"""What a comparison of runs yields. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mta_framework.evaluation.report import MetricFacts

Place = tuple[str, str | None]
"""Label of a metric and name of a set; None for the unweighted average over the sets."""

Interval = tuple[float, float]
"""Of 95 %."""

Spread = Literal["sampling seeds", "training seeds"]
"""What a deviation is taken over."""

SIGNIFICANT = 0.05
"""Probability below which a difference is marked, after Holm's correction."""


@dataclass(frozen=True)
class RunRef:
    """A run that is compared: its name, its folder, the label of its row and the seed that it was trained from.

    A model that was evaluated alone has no training seed.
    """

    name: str
    folder: str
    row: str
    seed: int | None


@dataclass(frozen=True)
class Cell:
    """A score of a row.

    Args:
        mean: Over prompts, sampling seeds and runs, in the metric's own kind of mean.
        deviation: Sample standard deviation of the means of single seeds; None with a single one.
        over: Which seeds: of training where the row has several runs, else of sampling.
        count: How many seeds these are.
        interval: Bootstrap interval over prompts; None where there are too few.
    """

    mean: float
    deviation: float | None
    over: Spread
    count: int
    interval: Interval | None


@dataclass(frozen=True)
class Row:
    """A method: one run, or runs that differ in nothing but their training seed.

    Args:
        label: What it is called; no two rows are called the same.
        baseline: Label of the row that it is compared to; None where there is none.
        runs: Names of its runs.
        cells: Its scores.
        reference: Whether it is a model that was not trained here: a teacher, or a student before training.
    """

    label: str
    baseline: str | None
    runs: tuple[str, ...]
    cells: Mapping[Place, Cell]
    reference: bool = False


@dataclass(frozen=True)
class Contrast:
    """A row against its baseline, on one set or on the average over the sets.

    Args:
        metric: Label of the metric.
        set: Name of the set; None for the average.
        baseline: Label of the baseline.
        other: Label of the row.
        difference: Mean of the other less mean of the baseline; where lower scores are better, below 0 is better.
        interval: Paired bootstrap interval of the difference; None where there are too few prompts.
        p: Of the paired permutation test, two-sided.
        p_holm: The same after Holm's correction over all contrasts of the metric.
        wins: Prompts that the other answers better.
        ties: Prompts that both answer equally well.
        losses: Prompts that the baseline answers better.
        p_seeds: Of Welch's t-test over the means of single runs, two-sided: whether other training seeds would show the
            difference as well. None where one of the two was trained from a single seed.
    """

    metric: str
    set: str | None
    baseline: str
    other: str
    difference: float
    interval: Interval | None
    p: float
    p_holm: float
    wins: int
    ties: int
    losses: int
    p_seeds: float | None = None

    @property
    def significant(self) -> bool:
        """Whether prompts show the difference and, as far as is known, training seeds do."""
        return self.p_holm < SIGNIFICANT and (self.p_seeds is None or self.p_seeds < SIGNIFICANT)


@dataclass(frozen=True)
class PromptPair:
    """The scores of a row and of its baseline on one prompt: means over all seeds and runs.

    Args:
        number: Place of the prompt in its set, from 1.
        outcome: 1 where the other is better, -1 where the baseline is, 0 where neither is.
    """

    metric: str
    set: str
    number: int
    baseline: str
    other: str
    baseline_score: float
    other_score: float
    outcome: int


@dataclass(frozen=True)
class SideBySide:
    """A prompt on which two rows lie far apart, with a response of each: of the first run and the first seed.

    Args:
        pair: Rows, prompt and scores.
        prompt: Its text.
        reference: The first one.
        baseline_text: Response of the baseline.
        other_text: Response of the other.
    """

    pair: PromptPair
    prompt: str
    reference: str
    baseline_text: str
    other_text: str


@dataclass(frozen=True)
class Verdict:
    """What a metric that compares responses says of two rows: first runs, first seeds.

    Args:
        metric: Its label.
        set: Name of the set; None for the average.
        baseline: Label of the one row.
        other: Label of the other.
        share: Mean preference for the other: 1 where it is better, 0 where the baseline is, else one half.
        interval: Bootstrap interval of the share; None where there are too few prompts.
        p: Of the paired permutation test, two-sided: whether the share is one half.
        wins: Prompts that the other answers better.
        ties: Prompts where neither is preferred.
        losses: Prompts that the baseline answers better.
    """

    metric: str
    set: str | None
    baseline: str
    other: str
    share: float
    interval: Interval | None
    p: float
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True)
class Comparison:
    """Everything that a comparison tells.

    Args:
        metrics: In the order of the tables.
        sets: Names, in the order of the columns; with several there is the average over them too, as set None.
        rows: In the order of the table: every baseline above the rows that are compared to it.
        contrasts: By metric, then by row, then by set.
        examples: Prompts on which rows lie far apart, those that the other wins first.
        notes: Sentences that belong under every table: what the numbers are, and differences that were accepted.
        runs: All runs.
        pairs: Every prompt of every contrast.
        verdicts: Of a metric that compares responses, where one was asked for.
    """

    metrics: tuple[MetricFacts, ...]
    sets: tuple[str, ...]
    rows: tuple[Row, ...]
    contrasts: tuple[Contrast, ...]
    examples: tuple[SideBySide, ...]
    notes: tuple[str, ...]
    runs: tuple[RunRef, ...]
    pairs: tuple[PromptPair, ...] = ()
    verdicts: tuple[Verdict, ...] = ()

    @property
    def columns(self) -> tuple[str | None, ...]:
        """The sets, then None for their average where there are several."""
        return (*self.sets, None) if len(self.sets) > 1 else self.sets

    def contrast(self, place: Place, label: str) -> Contrast | None:
        """The contrast of a row with its baseline at a place of the table."""
        found = (entry for entry in self.contrasts if (entry.metric, entry.set) == place and entry.other == label)
        return next(found, None)
