"""Confidence intervals and tests for scores and their differences, by SciPy: bootstrap and permutation over prompts.

The unit is the prompt. Its scores are first averaged over the seeds, since several responses to one prompt are no
independent evidence about other prompts. Prompts are then resampled within each set, so that the average over the sets
keeps its composition.

    S  seeds            P  prompts of one set            R  resamples
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mta_framework.types import MeanKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 9_999
CONFIDENCE = 0.95
SEED = 20
"""Seed of every resampling, so that the same scores give the same statistics."""

_BATCH_VALUES = 4_000_000
"""Most values that a batch of resamples holds in memory."""

_DIGITS = 10
"""Digits beyond which two means differ by rounding alone."""


@dataclass(frozen=True)
class PromptScores:
    """The scores of one model on one set.

    Args:
        scores_SP: Scores, float64; positive for geometric means.
        weights_SP: Weight of each score in the mean over prompts; None weighs all alike.
        mean: Kind of mean over seeds and over prompts.
    """

    scores_SP: NDArray[np.float64]
    weights_SP: NDArray[np.float64] | None = None
    mean: MeanKind = "arithmetic"

    def by_prompt(self) -> NDArray[np.float64]:
        """Mean score_P of each prompt over the seeds."""
        weights_SP = self.weights_SP
        if weights_SP is not None:  # a prompt may be without weight under every seed
            weights_SP = np.where(weights_SP.any(axis=0), weights_SP, 1.0)
        return self.outer(np.average(self.inner(self.scores_SP), axis=0, weights=weights_SP))

    def weight_by_prompt(self) -> NDArray[np.float64] | None:
        """Mean weight_P of each prompt over the seeds; None where all weigh alike, or all weights are 0."""
        return None if self.weights_SP is None or not self.weights_SP.any() else self.weights_SP.mean(axis=0)

    def inner(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The values whose arithmetic mean is taken: the scores, or their logarithms."""
        return np.log(scores) if self.mean == "geometric" else scores

    def outer(self, means: NDArray[np.float64]) -> NDArray[np.float64]:
        """Inverse of ``inner``."""
        return np.exp(means) if self.mean == "geometric" else means


@dataclass(frozen=True)
class MeanDifference:
    """A difference of two means.

    Args:
        value: The difference.
        interval: Its 95 % interval; None with too few prompts.
        p: Two-sided p-value of the difference.
    """

    value: float
    interval: tuple[float, float] | None
    p: float


def mean(parts: Sequence[PromptScores]) -> float:
    """Unweighted mean over the sets of the means over their prompts; NaN where a set is empty."""
    return float(_statistic(parts)(*map(_prompt_indices, parts))) if _filled(parts) else float("nan")


def interval(parts: Sequence[PromptScores]) -> tuple[float, float] | None:
    """95 % bootstrap interval of ``mean``, bias-corrected and accelerated (Efron 1987).

    Args:
        parts: Scores on each set; prompts are resampled within each.

    Returns:
        Lower and upper end, which both equal the mean where the scores of every set are all alike; None where a set has
        fewer than two prompts, or too few with a weight.
    """
    return _interval(_statistic(parts), parts) if _filled(parts) else None


def difference(baseline: Sequence[PromptScores], other: Sequence[PromptScores]) -> MeanDifference:
    """Difference of two models' means on the same prompts, with its interval and p-value.

    The interval comes from the paired bootstrap, which resamples prompts with both scores. The p-value comes from the
    paired permutation test, whose null hypothesis is that the two scores of a prompt are exchangeable; it is estimated
    from random swaps, the observed assignment included, and so is never 0. It is 1 where a swap would leave one of the
    models without any weight, which rules out a test.

    Args:
        baseline: Scores of one model on each set.
        other: Scores of the other model on the same sets, prompts in the same order.

    Returns:
        ``mean(other) - mean(baseline)`` with interval and p-value; NaN, None and 1 without prompts.
    """
    if not _filled(baseline):
        return MeanDifference(float("nan"), None, 1.0)
    lower, upper = _statistic(baseline), _statistic(other)

    def statistic(*index: NDArray[np.int64], axis: int = -1) -> NDArray[np.float64]:
        return upper(*index) - lower(*index)

    value = float(statistic(*map(_prompt_indices, baseline)))
    return MeanDifference(value, _interval(statistic, baseline), _p_value(baseline, other))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for multiple comparisons by Holm's step-down method (1979); the order is kept."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1, np.maximum.accumulate(factors * np.asarray(p_values, dtype=float)[order]))
    return corrected.tolist()


Statistic = Callable[..., "NDArray[np.float64]"]


def _statistic(parts: Sequence[PromptScores]) -> Statistic:
    """The mean over sets of means over prompts, as a function of one array (..., P) of prompt indices for each set."""
    sets = [(part, part.inner(part.by_prompt()), part.weight_by_prompt()) for part in parts]

    def statistic(*index: NDArray[np.int64], axis: int = -1) -> NDArray[np.float64]:
        means = [
            part.outer(values[rows].mean(axis=-1) if weights is None else _weighted(values[rows], weights[rows]))
            for rows, (part, values, weights) in zip(index, sets, strict=True)
        ]
        return np.mean(means, axis=0)

    return statistic


def _weighted(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return (values * weights).sum(axis=-1) / weights.sum(axis=-1)


def _interval(statistic: Statistic, parts: Sequence[PromptScores]) -> tuple[float, float] | None:
    from scipy.stats import DegenerateDataWarning, bootstrap

    indices = [_prompt_indices(part) for part in parts]
    if min(map(len, indices)) < 2:
        return None
    settings = {"confidence_level": CONFIDENCE, "n_resamples": RESAMPLES, "batch": _batch(parts), "vectorized": True}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)
        result = bootstrap(indices, _rounded(statistic, _scale(parts)), method="BCa", rng=SEED, **settings)
    low, high = result.confidence_interval
    if np.isnan(low) or np.isnan(high):  # nothing varies, so no correction is defined
        low, high = np.quantile(result.bootstrap_distribution, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return None if np.isnan(low) else (float(low), float(high))


def _p_value(baseline: Sequence[PromptScores], other: Sequence[PromptScores]) -> float:
    from scipy.stats import monte_carlo_test

    pairs = [_Swaps(first, second) for first, second in zip(baseline, other, strict=True)]
    ends = np.cumsum([pair.prompts for pair in pairs])
    rng = np.random.default_rng(SEED)

    def swaps(size: tuple[int, ...]) -> NDArray[np.float64]:
        return rng.integers(0, 2, size).astype(float)

    def statistic(swapped: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        parts = np.split(swapped, ends[:-1], axis=-1)
        return np.mean([pair.difference(part) for pair, part in zip(pairs, parts, strict=True)], axis=0)

    rounded = _rounded(statistic, _scale([*baseline, *other]))
    settings = {"n_resamples": RESAMPLES, "batch": _batch(baseline), "vectorized": True, "alternative": "two-sided"}
    with np.errstate(all="ignore"):
        result = monte_carlo_test(np.zeros(ends[-1]), swaps, rounded, **settings)
    return float(result.pvalue) if np.isfinite(result.null_distribution).all() else 1.0


class _Swaps:
    """Two models on one set with the scores of some prompts swapped, in which sums over prompts are linear."""

    def __init__(self, baseline: PromptScores, other: PromptScores):
        self.part = baseline
        self.sides = [self._sums(baseline), self._sums(other)]
        self.prompts = len(self.sides[0])

    @staticmethod
    def _sums(part: PromptScores) -> NDArray[np.float64]:
        scores_P, weights_P = part.by_prompt(), part.weight_by_prompt()
        weights_P = np.ones_like(scores_P) if weights_P is None else weights_P
        return np.stack([weights_P * part.inner(scores_P), weights_P], axis=-1)

    def difference(self, swapped_RP: NDArray[np.float64]) -> NDArray[np.float64]:
        """difference_R of the means, with scores swapped where ``swapped_RP`` is 1."""
        moved = swapped_RP @ (self.sides[1] - self.sides[0])
        first, second = self.sides[0].sum(axis=0) + moved, self.sides[1].sum(axis=0) - moved
        return self.part.outer(second[..., 0] / second[..., 1]) - self.part.outer(first[..., 0] / first[..., 1])


def _rounded(statistic: Statistic, scale: float) -> Statistic:
    """Makes means equal that differ only by the order of summation."""

    def rounded(*data: NDArray, axis: int = -1) -> NDArray[np.float64]:
        return np.round(statistic(*data) / scale, _DIGITS) * scale

    return rounded


def _scale(parts: Sequence[PromptScores]) -> float:
    """Magnitude of the means."""
    return max(float(part.outer(part.inner(np.abs(part.scores_SP)).mean())) for part in parts) or 1.0


def _prompt_indices(part: PromptScores) -> NDArray[np.int64]:
    return np.arange(part.scores_SP.shape[1])


def _filled(parts: Sequence[PromptScores]) -> bool:
    return bool(parts) and all(part.scores_SP.shape[1] for part in parts)


def _batch(parts: Sequence[PromptScores]) -> int:
    return max(1, _BATCH_VALUES // sum(part.scores_SP.shape[1] for part in parts))
