"""How sure a score and a difference are: bootstrap and permutation over prompts, by SciPy.

A prompt is the unit. Its scores are averaged over the seeds first: draws for one prompt are no independent evidence
about other prompts. Prompts are then drawn anew within each set, so the average over sets keeps its parts.

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
"""Of every resampling, so that the same scores give the same numbers."""

_HELD = 4_000_000
"""Numbers that a batch of resamples may hold."""

_DIGITS = 10
"""Digits beyond which two means differ by rounding alone."""


@dataclass(frozen=True)
class PromptScores:
    """The scores of one model on one set.

    Args:
        scores_SP: float64; above 0 for geometric means.
        weights_SP: How much each counts in the mean over prompts; None: all alike.
        mean: How scores are averaged over seeds and over prompts.
    """

    scores_SP: NDArray[np.float64]
    weights_SP: NDArray[np.float64] | None = None
    mean: MeanKind = "arithmetic"

    def by_prompt(self) -> NDArray[np.float64]:
        """score_P: averaged over the seeds."""
        weights_SP = self.weights_SP
        if weights_SP is not None:  # a prompt may be without weight under every seed
            weights_SP = np.where(weights_SP.any(axis=0), weights_SP, 1.0)
        return self.outer(np.average(self.inner(self.scores_SP), axis=0, weights=weights_SP))

    def weight_by_prompt(self) -> NDArray[np.float64] | None:
        """weight_P: averaged over the seeds; None where all are alike, or no prompt has any."""
        return None if self.weights_SP is None or not self.weights_SP.any() else self.weights_SP.mean(axis=0)

    def inner(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is averaged arithmetically: the scores, or their logarithms."""
        return np.log(scores) if self.mean == "geometric" else scores

    def outer(self, means: NDArray[np.float64]) -> NDArray[np.float64]:
        """Undo ``inner``."""
        return np.exp(means) if self.mean == "geometric" else means


@dataclass(frozen=True)
class Difference:
    """Mean of the one less mean of the other, its 95 % interval (None: too few prompts), and its two-sided p."""

    value: float
    interval: tuple[float, float] | None
    p: float


def mean(parts: Sequence[PromptScores]) -> float:
    """Mean over the sets of the means over prompts; NaN where a set is empty."""
    return float(_statistic(parts)(*map(_places, parts))) if _filled(parts) else float("nan")


def interval(parts: Sequence[PromptScores]) -> tuple[float, float] | None:
    """95 % bootstrap interval of ``mean``, bias-corrected and accelerated (Efron 1987).

    Args:
        parts: One for each set; prompts are resampled within each.

    Returns:
        Lower and upper end, both the mean where all scores of every set are alike; None where a set has fewer than
        two prompts, or not enough with a weight.
    """
    return _interval(_statistic(parts), parts) if _filled(parts) else None


def difference(baseline: Sequence[PromptScores], other: Sequence[PromptScores]) -> Difference:
    """Compare two models that answered the same prompts.

    The interval is of the paired bootstrap: prompts are drawn with both answers. The probability is of the paired
    permutation test: under the null hypothesis the answers to a prompt could as well have come from the other model.
    It is estimated from random swaps, the observed one counted in: it is never 0. Where a swap would leave one of the
    two without any weight, there is no test, and it is 1.

    Args:
        baseline: One part for each set.
        other: The same sets, prompts in the same order.

    Returns:
        ``mean(other) - mean(baseline)`` and how sure it is; without prompts NaN, None and 1.
    """
    if not _filled(baseline):
        return Difference(float("nan"), None, 1.0)
    lower, upper = _statistic(baseline), _statistic(other)

    def statistic(*index: NDArray[np.int64], axis: int = -1) -> NDArray[np.float64]:
        return upper(*index) - lower(*index)

    value = float(statistic(*map(_places, baseline)))
    return Difference(value, _interval(statistic, baseline), _probability(baseline, other))


def welch(baseline: Sequence[float], other: Sequence[float]) -> float | None:
    """Two-sided probability of Welch's t-test: two samples of unlike spread, e.g. runs of two methods.

    Returns:
        None where one of them has fewer than two values.
    """
    from scipy.stats import ttest_ind

    if min(len(baseline), len(other)) < 2:
        return None
    if len({*baseline}) == len({*other}) == 1:  # no spread to go by
        return float(baseline[0] == other[0])
    return float(ttest_ind(baseline, other, equal_var=False).pvalue)


def holm(probabilities: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): what each probability becomes as one of several, in the same order."""
    order = np.argsort(probabilities, kind="stable")
    factors = np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1, np.maximum.accumulate(factors * np.asarray(probabilities, dtype=float)[order]))
    return corrected.tolist()


Statistic = Callable[..., "NDArray[np.float64]"]


def _statistic(parts: Sequence[PromptScores]) -> Statistic:
    """Mean over sets of means over prompts, of arrays (..., P) of prompt numbers, one array for each set."""
    held = [(part, part.inner(part.by_prompt()), part.weight_by_prompt()) for part in parts]

    def statistic(*index: NDArray[np.int64], axis: int = -1) -> NDArray[np.float64]:
        means = [
            part.outer(values[rows].mean(axis=-1) if weights is None else _weighted(values[rows], weights[rows]))
            for rows, (part, values, weights) in zip(index, held, strict=True)
        ]
        return np.mean(means, axis=0)

    return statistic


def _weighted(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return (values * weights).sum(axis=-1) / weights.sum(axis=-1)


def _interval(statistic: Statistic, parts: Sequence[PromptScores]) -> tuple[float, float] | None:
    from scipy.stats import DegenerateDataWarning, bootstrap

    places = [_places(part) for part in parts]
    if min(map(len, places)) < 2:
        return None
    settings = {"confidence_level": CONFIDENCE, "n_resamples": RESAMPLES, "batch": _batch(parts), "vectorized": True}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)
        found = bootstrap(places, _rounded(statistic, _scale(parts)), method="BCa", rng=SEED, **settings)
    low, high = found.confidence_interval
    if np.isnan(low) or np.isnan(high):  # nothing varies, so there is nothing to correct
        low, high = np.quantile(found.bootstrap_distribution, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return None if np.isnan(low) else (float(low), float(high))


def _probability(baseline: Sequence[PromptScores], other: Sequence[PromptScores]) -> float:
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
        found = monte_carlo_test(np.zeros(ends[-1]), swaps, rounded, **settings)
    return float(found.pvalue) if np.isfinite(found.null_distribution).all() else 1.0


class _Swaps:
    """Two models on one set, where some prompts have their answers swapped: sums over prompts are linear in that."""

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
        """difference_R: of the means, with answers swapped where ``swapped_RP`` is 1."""
        moved = swapped_RP @ (self.sides[1] - self.sides[0])
        first, second = self.sides[0].sum(axis=0) + moved, self.sides[1].sum(axis=0) - moved
        return self.part.outer(second[..., 0] / second[..., 1]) - self.part.outer(first[..., 0] / first[..., 1])


def _rounded(statistic: Statistic, scale: float) -> Statistic:
    """Resamples of the same mean are ties, in whatever order it was added up."""

    def rounded(*data: NDArray, axis: int = -1) -> NDArray[np.float64]:
        return np.round(statistic(*data) / scale, _DIGITS) * scale

    return rounded


def _scale(parts: Sequence[PromptScores]) -> float:
    """How large means are."""
    return max(float(part.outer(part.inner(np.abs(part.scores_SP)).mean())) for part in parts) or 1.0


def _places(part: PromptScores) -> NDArray[np.int64]:
    return np.arange(part.scores_SP.shape[1])


def _filled(parts: Sequence[PromptScores]) -> bool:
    return bool(parts) and all(part.scores_SP.shape[1] for part in parts)


def _batch(parts: Sequence[PromptScores]) -> int:
    return max(1, _HELD // sum(part.scores_SP.shape[1] for part in parts))
