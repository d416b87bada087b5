"""What a comparison of runs yields. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mta_framework.evaluation.report import ReportedMetric
from mta_framework.evaluation.seed_statistics import SeedDifference

CellKey = tuple[str, str | None]
"""Label of a metric and name of a set; None stands for the unweighted average over the sets."""

Interval = tuple[float, float]
"""Ends of a 95 % interval."""

Spread = Literal["sampling seeds", "training seeds"]
"""What a deviation is taken over."""

SIGNIFICANT = 0.05
"""Probability below which a difference is marked, after Holm's correction."""


@dataclass(frozen=True)
class RunRef:
    """A compared run.

    Args:
        name: Name of the run.
        folder: Folder of the run.
        row: Label of its row.
        seed: Training seed; None: nothing was trained.
        seconds: Time of its training without validations, up to the last of these; None where it was not logged.
        scores: Metric and set, such as ``rouge_l dolly`` -> mean over prompts and sampling seeds.
    """

    name: str
    folder: str
    row: str
    seed: int | None
    seconds: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RowScore:
    """A score of a row.

    Args:
        mean: Mean over prompts, sampling seeds and runs, of the kind that the metric asks for.
        deviation: Sample standard deviation of the means of single seeds; None with a single seed.
        over: Seeds that the deviation is taken over: training seeds if the row has several runs, else sampling seeds.
        count: Number of these seeds.
        interval: Bootstrap interval over prompts; None where there are too few prompts.
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
        label: Unique label of the row.
        baseline: Label of the row that it is compared with; None where there is none.
        runs: Names of the runs.
        cells: Scores by metric and set.
        reference: Whether the model was not trained in these runs: a teacher, or a student before training.
    """

    label: str
    baseline: str | None
    runs: tuple[str, ...]
    cells: Mapping[CellKey, RowScore]
    reference: bool = False


@dataclass(frozen=True)
class Contrast:
    """A row against its baseline, on one set or on the average over the sets.

    Args:
        metric: Label of the metric.
        set: Name of the set; None for the average.
        baseline: Label of the baseline.
        row: Label of the row.
        difference: Mean of the row minus mean of the baseline; where lower scores are better, below 0 is better.
        interval: Paired bootstrap interval of the difference; None where there are too few prompts.
        p: Two-sided probability of the paired permutation test.
        p_holm: The same after Holm's correction over all contrasts of the metric.
        wins: Number of prompts that the row answers better.
        ties: Number of prompts that both answer equally well.
        losses: Number of prompts that the baseline answers better.
        seeds: The difference over training seeds, of the means of single runs: whether other seeds would show it as
            well. None as in ``OutcomeContrast``.
    """

    metric: str
    set: str | None
    baseline: str
    row: str
    difference: float
    interval: Interval | None
    p: float
    p_holm: float
    wins: int
    ties: int
    losses: int
    seeds: SeedDifference | None = None

    @property
    def significant(self) -> bool:
        """Whether prompts show the difference and, as far as is known, training seeds show one of the same sign."""
        shown = self.seeds is None or (self.seeds.p < SIGNIFICANT and self.seeds.value * self.difference > 0)
        return self.p_holm < SIGNIFICANT and shown


@dataclass(frozen=True)
class OutcomeContrast:
    """A row against its baseline by a validation outcome.

    Args:
        baseline: Label of the baseline.
        row: Label of the row.
        difference: Mean of the row minus mean of the baseline, over the pairs of training seeds where these are paired.
        seeds: The test over training seeds; None where one of the two was trained from a single seed, or where the
            difference is the same for all seeds and not 0.
        p_holm: Its probability after Holm's correction over all tests of the outcome; None without a test.
    """

    baseline: str
    row: str
    difference: float
    seeds: SeedDifference | None
    p_holm: float | None

    @property
    def significant(self) -> bool:
        """Whether training seeds show the difference."""
        return self.p_holm is not None and self.p_holm < SIGNIFICANT


@dataclass(frozen=True)
class ValidationOutcome:
    """A quantity on the validation set at the end of training, of all rows that measured it alike.

    Args:
        name: Name in the training log, without ``eval_``, e.g. ``cross_entropy``.
        label: Unique label, e.g. ``validation cross_entropy``.
        higher_is_better: Whether higher values are better; None where that is unknown.
        values: Label of a row -> training seed -> value.
        contrasts: Differences from the baselines, in the order of the rows.
        exported: Whether the values are those of the exported students, at the steps that were chosen, rather than
            those after the last step.
    """

    name: str
    label: str
    higher_is_better: bool | None
    values: Mapping[str, Mapping[int, float]]
    contrasts: tuple[OutcomeContrast, ...]
    exported: bool = False


@dataclass(frozen=True)
class Curve:
    """A quantity of one row during training, at the steps at which every run of the row logged it.

    Args:
        steps: Steps.
        seconds: Mean training time of the runs at these steps; None where it was not logged.
        values: Training seed -> value at each step.
    """

    steps: tuple[int, ...]
    seconds: tuple[float, ...] | None
    values: Mapping[int, tuple[float, ...]]


@dataclass(frozen=True)
class LearningCurves:
    """The curves of a quantity.

    Args:
        name: Unique name of the quantity, of letters, digits and hyphens.
        title: What is drawn.
        rows: Label of a row -> its curve.
        time: What the training times of the curves count, for axes.
        validation: Whether the quantity is a validation outcome.
    """

    name: str
    title: str
    rows: Mapping[str, Curve]
    time: str
    validation: bool


@dataclass(frozen=True)
class PromptPair:
    """The scores of a row and of its baseline on one prompt: means over all seeds and runs.

    Args:
        metric: Label of the metric.
        set: Name of the set.
        position: Position of the prompt in its set, counted from 1.
        baseline: Label of the baseline.
        row: Label of the row.
        baseline_score: Score of the baseline.
        row_score: Score of the row.
        outcome: 1 where the row is better, -1 where the baseline is, 0 where neither is.
    """

    metric: str
    set: str
    position: int
    baseline: str
    row: str
    baseline_score: float
    row_score: float
    outcome: int


@dataclass(frozen=True)
class SideBySide:
    """A prompt with its first reference, and the responses of two rows: those of the first run under the first seed."""

    pair: PromptPair
    prompt: str
    reference: str
    baseline_text: str
    row_text: str


@dataclass(frozen=True)
class Verdict:
    """What a metric that compares responses says of two rows: of their first runs, under the first seed.

    Args:
        metric: Label of the metric.
        set: Name of the set; None for the average.
        baseline: Label of the baseline.
        row: Label of the row.
        share: Mean preference for the row: 1 where it is better, 0 where the baseline is, else one half.
        interval: Bootstrap interval of the share; None where there are too few prompts.
        p: Two-sided probability of the paired permutation test that the share is one half.
        wins: Number of prompts where the row is preferred.
        ties: Number of prompts where neither is preferred.
        losses: Number of prompts where the baseline is preferred.
    """

    metric: str
    set: str | None
    baseline: str
    row: str
    share: float
    interval: Interval | None
    p: float
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Args:
        metrics: Metrics, in the order of the tables.
        sets: Names of the sets, in the order of the columns.
        rows: Rows in the order of the tables: every baseline above the rows that are compared with it.
        contrasts: Differences by metric, then by row, then by set.
        examples: Prompts on which rows lie far apart, those that the row wins first.
        notes: Sentences that belong under every table: what the numbers are, and differences that were accepted.
        runs: All runs.
        pairs: Every prompt of every contrast.
        verdicts: Verdicts of a metric that compares responses, if one was asked for.
        outcomes: Validation outcomes of the trained rows.
        outcome_notes: Sentences that belong under the tables of outcomes.
        curves: Learning curves: outcomes first, then what is logged of training.
        name: Name of the sweep whose runs these are; empty: none.
    """

    metrics: tuple[ReportedMetric, ...]
    sets: tuple[str, ...]
    rows: tuple[Row, ...]
    contrasts: tuple[Contrast, ...]
    examples: tuple[SideBySide, ...]
    notes: tuple[str, ...]
    runs: tuple[RunRef, ...]
    pairs: tuple[PromptPair, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    outcomes: tuple[ValidationOutcome, ...] = ()
    outcome_notes: tuple[str, ...] = ()
    curves: tuple[LearningCurves, ...] = ()
    name: str = ""

    @property
    def columns(self) -> tuple[str | None, ...]:
        """The sets, then None for their average where there are several."""
        return with_average(self.sets)

    def noted(self, sentences: Sequence[str]) -> Comparison:
        """This comparison with further sentences before its notes and its notes on outcomes."""
        of_outcomes = (*sentences, *self.outcome_notes)
        return dataclasses.replace(self, notes=(*sentences, *self.notes), outcome_notes=of_outcomes)

    def contrast(self, key: CellKey, label: str) -> Contrast | None:
        """The contrast of a row with its baseline by one metric on one set; None where the row has no baseline."""
        contrasts = (entry for entry in self.contrasts if (entry.metric, entry.set) == key and entry.row == label)
        return next(contrasts, None)


def with_average(sets: tuple[str, ...]) -> tuple[str | None, ...]:
    """Names of sets, then None for their average where there are several."""
    return (*sets, None) if len(sets) > 1 else sets
