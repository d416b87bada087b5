"""Tests over training seeds, against SciPy's and against power that is integrated by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from mta_framework.evaluation.seed_statistics import mean_difference, seed_band, seed_difference, smallest_effect

BASE = {1: 2.7046, 2: 2.7048, 3: 2.7248, 4: 2.6991}
OTHER = {4: 2.6950, 3: 2.7052, 2: 2.7142, 1: 2.7017}


def test_the_same_seeds_are_paired_whatever_their_order():
    result = seed_difference(BASE, OTHER)
    gaps = [OTHER[seed] - BASE[seed] for seed in BASE]
    exact = stats.ttest_rel([OTHER[seed] for seed in BASE], list(BASE.values()))
    assert (result.paired, result.seeds) == (True, (4, 4))
    assert result.value == pytest.approx(np.mean(gaps))
    assert result.p == pytest.approx(exact.pvalue)
    assert result.interval == pytest.approx(tuple(exact.confidence_interval(0.95)))


def test_a_row_with_fewer_of_the_seeds_is_paired_over_those():
    result = seed_difference(BASE, {1: 2.6, 3: 2.7})
    assert (result.paired, result.seeds) == (True, (2, 2))
    assert result.value == pytest.approx((2.6 - 2.7046 + 2.7 - 2.7248) / 2)


def test_a_difference_without_a_test_is_paired_all_the_same():
    assert mean_difference({1: 1.0, 2: 2.0, 3: 3.0}, {3: 2.9}) == pytest.approx(-0.1)
    assert mean_difference({1: 1.0, 2: 2.0}, {3: 2.9}) == pytest.approx(1.4)


@pytest.mark.parametrize("scale", [1e-120, 1e90])
def test_welchs_test_does_not_depend_on_the_unit(scale):
    other = {7: 2.69, 8: 2.75, 9: 2.72}
    large = seed_difference(*({seed: value * scale for seed, value in side.items()} for side in (BASE, other)))
    assert large.p == pytest.approx(seed_difference(BASE, other).p)


def test_other_seeds_are_compared_by_welchs_test():
    other = {7: 2.69, 8: 2.75, 3: 2.72}
    result = seed_difference(BASE, other)
    exact = stats.ttest_ind(list(other.values()), list(BASE.values()), equal_var=False)
    assert (result.paired, result.seeds) == (False, (4, 3))
    assert result.p == pytest.approx(exact.pvalue)
    assert result.interval == pytest.approx(tuple(exact.confidence_interval(0.95)))
    parts = [np.var(list(side.values()), ddof=1) / len(side) for side in (BASE, other)]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 3 + parts[1] ** 2 / 2)
    assert result.smallest_effect == pytest.approx(smallest_effect(math.sqrt(sum(parts)), freedom))


@pytest.mark.parametrize("sides", [({1: 2.0}, OTHER), (BASE, {}), (BASE, {9: 1.0})])
def test_a_single_seed_shows_nothing(sides):
    assert seed_difference(*sides) is None


@pytest.mark.parametrize("seeds", [(1, 2, 3), (4, 5, 6)])
def test_runs_that_do_not_vary_are_alike_or_show_nothing(seeds):
    alike = seed_difference(dict.fromkeys((1, 2, 3), 0.3), dict.fromkeys(seeds, 0.3))
    assert (alike.p, alike.smallest_effect, alike.interval) == (1.0, 0.0, (0.0, 0.0))
    assert seed_difference(dict.fromkeys((1, 2, 3), 0.3), dict.fromkeys(seeds, 0.4)) is None


def test_differences_that_vary_by_rounding_alone_show_nothing():
    baseline, other = {1: 0.1, 2: 0.3}, {1: 0.2, 2: 0.4}
    assert other[1] - baseline[1] != other[2] - baseline[2]
    assert seed_difference(baseline, other) is None
    assert seed_difference(baseline, {1: 0.2, 2: 0.4 + 1e-9}) is not None


def test_the_smallest_effect_of_tables():
    """Standardised effects of a paired t-test, two-sided 5 %, power 80 %, as G*Power and statsmodels have them."""
    for seeds, effect in ((5, 1.6820), (10, 0.9960), (20, 0.6604), (34, 0.4950)):
        assert smallest_effect(1 / math.sqrt(seeds), seeds - 1) == pytest.approx(effect, abs=1e-4)


@pytest.mark.parametrize("freedom", [1.0, 1.5, 2.0, 4.0, 19.0, 80.0])
def test_the_smallest_effect_is_shown_in_80_of_100_experiments(freedom):
    """Power by integration over the standard error: the test is normal at a given one."""
    noncentrality = smallest_effect(1.0, freedom)
    critical = stats.t.ppf(0.975, freedom)

    def shown(ratio):
        tails = stats.norm.sf(critical * ratio - noncentrality) + stats.norm.cdf(-critical * ratio - noncentrality)
        return tails * 2 * freedom * ratio * stats.chi2.pdf(freedom * ratio**2, freedom)

    power, error = integrate.quad(shown, 0, np.inf, limit=500)
    assert power == pytest.approx(0.8, abs=max(1e-6, 10 * error))


def test_the_smallest_effect_grows_with_the_standard_error():
    assert smallest_effect(0.5, 7) == pytest.approx(0.5 * smallest_effect(1.0, 7))


def test_bands_are_t_intervals_from_three_seeds_on_and_ranges_of_two():
    values = [1.0, 4.0, 2.5, 3.0]
    exact = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert seed_band(values) == pytest.approx(exact)
    assert seed_band([4.0, 1.0]) == (1.0, 4.0)
    assert seed_band([4.0]) is None
    assert seed_band([2.0, 2.0, 2.0]) == (2.0, 2.0)
