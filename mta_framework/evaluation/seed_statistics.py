"""Tests over training seeds: whether other seeds would show a difference, and how small a one these seeds could show.

The unit is the run: one value for each training seed of each of two methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
POWER = 0.8
"""Probability with which the smallest effect is shown."""

_ROUNDING = 1e-12
"""Share of the values up to which their differences vary by rounding alone."""

_LARGEST_NONCENTRALITY = 20.0
"""Bound of the search: a single degree of freedom, the fewest there are, needs 16.4."""


@dataclass(frozen=True)
class SeedDifference:
    """A difference of two methods over training seeds, by a t-test.

    Args:
        value: Mean of the second method minus mean of the first; where seeds are paired, over the pairs.
        interval: 95 % t-interval of the difference.
        p: Two-sided p-value.
        seeds: Number of seeds of the first and of the second method; equal where they are paired.
        paired: Whether values of the same training seed were paired. Otherwise the test is Welch's.
        smallest_effect: True difference that the test would show with 80 % power (two-sided, 5 %) at the observed
            deviation.
    """

    value: float
    interval: tuple[float, float]
    p: float
    seeds: tuple[int, int]
    paired: bool
    smallest_effect: float


def seed_difference(baseline: Mapping[int, float], other: Mapping[int, float]) -> SeedDifference | None:
    """Compare two methods over their training seeds.

    Values are paired by seed, over the seeds of both, where one method has all seeds of the other: a seed gives both
    the same initial weights and order of data, so that their difference varies less than either. Otherwise the two are
    independent samples of unequal variance.

    Args:
        baseline: Training seed -> value of one method, e.g. its validation loss.
        other: Training seed -> value of the other method.

    Returns:
        The difference ``other - baseline``; None where one of the methods has fewer than two seeds, and where it is the
        same for all seeds and not 0: without any deviation nothing is known of other seeds.
    """
    if min(len(baseline), len(other)) < 2:
        return None
    value = mean_difference(baseline, other)
    rounding = _ROUNDING * max(map(abs, (*baseline.values(), *other.values())))
    if gaps := _gaps(baseline, other):
        return _t_test(value, _squared_error(gaps, rounding), len(gaps) - 1, (len(gaps), len(gaps)), paired=True)
    errors = [_squared_error([*values.values()], rounding) for values in (baseline, other)]
    seeds = (len(baseline), len(other))
    return _t_test(value, sum(errors), _satterthwaite(errors, seeds), seeds, paired=False)


def mean_difference(baseline: Mapping[int, float], other: Mapping[int, float]) -> float:
    """Mean difference ``other - baseline`` of two methods, over pairs where ``seed_difference`` pairs their seeds.

    Args:
        baseline: Training seed -> value of one method, of one seed or more.
        other: Training seed -> value of the other method.
    """
    gaps = _gaps(baseline, other)
    return float(np.mean(gaps) if gaps else np.mean([*other.values()]) - np.mean([*baseline.values()]))


def seed_band(values: Sequence[float]) -> tuple[float, float] | None:
    """Range of a method over its training seeds, for plots.

    Args:
        values: One value per seed.

    Returns:
        95 % t-interval of the mean from three seeds on, lowest and highest value of two, None of one.
    """
    from scipy.stats import t

    if len(values) < 3:
        return (min(values), max(values)) if len(values) == 2 else None
    margin = float(np.sqrt(_squared_error(values)) * t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return float(np.mean(values)) - margin, float(np.mean(values)) + margin


def smallest_effect(standard_error: float, freedom: float) -> float:
    """Difference that a two-sided t-test at 5 % shows with 80 % power, by the noncentral t-distribution.

    Args:
        standard_error: Standard error of the difference.
        freedom: Degrees of freedom of the test.
    """
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    critical = t.ppf((1 + CONFIDENCE) / 2, freedom)

    def missing_power(noncentrality: float) -> float:
        # The second is the lower tail: SciPy's cdf gives NaN where it is tiny.
        tails = [nct.sf(critical, freedom, sign * noncentrality) for sign in (1, -1)]
        return float(sum(tails) - POWER)

    return standard_error * brentq(missing_power, 0.0, _LARGEST_NONCENTRALITY)


def _gaps(baseline: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    """The differences by seed where one method has all seeds of the other; empty where neither has."""
    common = baseline.keys() & other.keys()
    paired = len(common) == min(len(baseline), len(other))
    return [other[seed] - baseline[seed] for seed in sorted(common)] if paired else []


def _t_test(
    value: float, squared_error: float, freedom: float, seeds: tuple[int, int], paired: bool
) -> SeedDifference | None:
    from scipy.stats import t

    error = float(np.sqrt(squared_error))
    if error == 0.0:  # nothing varies
        return SeedDifference(value, (value, value), 1.0, seeds, paired, 0.0) if value == 0.0 else None
    margin = error * float(t.ppf((1 + CONFIDENCE) / 2, freedom))
    p = float(2 * t.sf(abs(value) / error, freedom))
    return SeedDifference(value, (value - margin, value + margin), p, seeds, paired, smallest_effect(error, freedom))


def _squared_error(values: Sequence[float], rounding: float = 0.0) -> float:
    """Squared standard error of the mean; 0 where the values differ by no more than ``rounding``."""
    return float(np.var(values, ddof=1)) / len(values) if max(values) - min(values) > rounding else 0.0


def _satterthwaite(errors: Sequence[float], seeds: Sequence[int]) -> float:
    """Degrees of freedom of Welch's test (Welch 1947)."""
    if not any(errors):
        return 1.0
    shares = [error / max(errors) for error in errors]  # squares of the errors themselves may overflow
    return sum(shares) ** 2 / sum(share**2 / (count - 1) for share, count in zip(shares, seeds, strict=True))
