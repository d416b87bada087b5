"""How sure a score is, against SciPy, against enumeration by hand, and against the truth in simulations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from mta_framework.evaluation import statistics
from mta_framework.evaluation.statistics import PromptScores, difference, holm, interval, mean

SKEWED = np.array([[0.0, 3.5, 12.0, 7.5, 40.0, 2.5, 9.0, 18.5, 0.0, 5.5, 31.0, 6.0]])
OTHER = np.array([[4.0, 3.5, 19.0, 6.5, 52.0, 0.5, 14.0, 15.5, 2.0, 11.5, 33.0, 9.0]])


def by_scipy(statistic, *data, **options):
    estimate = stats.bootstrap(
        data, statistic, n_resamples=statistics.RESAMPLES, rng=statistics.SEED, vectorized=True, **options
    )
    return pytest.approx(tuple(estimate.confidence_interval))


def gathered(rng, *shape):
    return [PromptScores(rng.gamma(1, 20, (shape[0], prompts))) for prompts in shape[1:]]


class TestMean:
    def test_of_several_seeds_is_over_all_scores(self):
        assert mean([PromptScores(np.array([[1.0, 2.0, 6.0], [3.0, 4.0, 8.0]]))]) == pytest.approx(4.0)

    def test_over_sets_counts_a_small_set_as_much_as_a_large_one(self):
        assert mean([PromptScores(np.array([[0.0, 0.0, 3.0]])), PromptScores(np.array([[9.0]]))]) == pytest.approx(5.0)

    def test_geometric_by_tokens_is_the_perplexity_of_the_corpus(self):
        nats, tokens = np.array([12.0, 3.0, 40.5]), np.array([6.0, 4.0, 9.0])
        part = PromptScores(np.exp(nats / tokens)[None], tokens[None], "geometric")
        assert mean([part]) == pytest.approx(math.exp(55.5 / 19))

    def test_weights_that_differ_by_seed_give_what_all_scores_together_give(self):
        scores, weights = np.array([[1.0, 5.0], [3.0, 7.0]]), np.array([[1.0, 2.0], [3.0, 4.0]])
        assert mean([PromptScores(scores, weights)]) == pytest.approx((1 + 10 + 9 + 28) / 10)

    def test_leaves_out_a_prompt_without_weight(self):
        assert mean([PromptScores(np.array([[1.0, 50.0, 3.0]]), np.array([[1.0, 0.0, 1.0]]))]) == pytest.approx(2.0)

    @pytest.mark.parametrize("parts", [[], [PromptScores(np.empty((2, 0)))]])
    def test_of_nothing_is_no_number(self, parts):
        assert math.isnan(mean(parts))


class TestInterval:
    def test_of_plain_scores_is_scipys(self):
        assert interval([PromptScores(SKEWED)]) == by_scipy(np.mean, SKEWED[0])

    def test_of_several_seeds_is_scipys_of_the_means_by_prompt(self):
        both = PromptScores(np.concatenate([SKEWED, OTHER]))
        assert interval([both]) == by_scipy(np.mean, (SKEWED[0] + OTHER[0]) / 2)

    def test_over_sets_draws_prompts_within_each(self):
        def average(first, second, axis):
            return (first.mean(axis=axis) + second.mean(axis=axis)) / 2

        parts = [PromptScores(SKEWED), PromptScores(OTHER[:, :5])]
        assert interval(parts) == by_scipy(average, SKEWED[0], OTHER[0, :5])

    def test_of_weighted_geometric_means_draws_scores_with_their_weights(self):
        def perplexity(nats, tokens, axis):
            return np.exp(nats.sum(axis=axis) / tokens.sum(axis=axis))

        nats, tokens = 1 + SKEWED, np.arange(3.0, 15.0)[None]
        part = PromptScores(np.exp(nats / tokens), tokens, "geometric")
        assert interval([part]) == by_scipy(perplexity, nats[0], tokens[0], paired=True)

    def test_of_a_geometric_mean_survives_an_astronomical_score(self):
        scores = np.array([[2.0, 3.0, 1.5, 4.0, 2.5, 1e30]])
        low, high = interval([PromptScores(scores, mean="geometric")])
        assert 1.5 < low < stats.gmean(scores[0]) < high

    def test_does_not_depend_on_how_much_is_held_at_once(self, monkeypatch):
        whole = interval([PromptScores(SKEWED)])
        monkeypatch.setattr(statistics, "_BATCH_VALUES", 1000)
        assert interval([PromptScores(SKEWED)]) == pytest.approx(whole)

    def test_of_one_prompt_is_unknown(self):
        assert interval([PromptScores(np.array([[3.0], [4.0]]))]) is None
        assert interval([PromptScores(SKEWED), PromptScores(np.array([[3.0]]))]) is None
        assert interval([]) is None

    def test_of_scores_that_are_all_alike_is_that_score(self):
        assert interval([PromptScores(np.full((2, 7), 0.3))]) == pytest.approx((0.3, 0.3))

    def test_of_two_prompts_spans_both(self):
        assert interval([PromptScores(np.array([[0.0, 1.0]]))]) == (0.0, 1.0)

    def test_covers_the_truth_in_95_of_100_draws(self, monkeypatch):
        monkeypatch.setattr(statistics, "RESAMPLES", 499)
        rng, covered = np.random.default_rng(1), 0
        for _ in range(1000):
            low, high = interval(gathered(rng, 2, 60, 40))
            covered += low <= 20 <= high
        # Within four standard deviations of a binomial, and half a percent that so few resamples may cost.
        assert abs(covered - 950) <= 4 * math.sqrt(1000 * 0.95 * 0.05) + 5


class TestDifference:
    def test_interval_is_scipys_of_the_differences_by_prompt(self):
        estimate = difference([PromptScores(SKEWED)], [PromptScores(OTHER)])
        assert estimate.value == pytest.approx((OTHER - SKEWED).mean())
        assert estimate.interval == by_scipy(np.mean, (OTHER - SKEWED)[0])

    def test_probability_is_that_of_all_swaps_counted_out(self):
        first, second = np.array([3.0, 5.5, 8.0, 1.0, 9.5, 4.0, 2.0]), np.array([4.0, 7.5, 7.0, 3.0, 13.0, 6.5, 2.5])
        gaps = second - first
        sums = [sum(s * g for s, g in zip(signs, gaps, strict=True)) for signs in itertools.product((1, -1), repeat=7)]
        exact = sum(abs(total) >= gaps.sum() - 1e-9 for total in sums) / len(sums)
        p = difference([PromptScores(first[None])], [PromptScores(second[None])]).p
        assert p == pytest.approx(exact, abs=4 * math.sqrt(2 * exact / statistics.RESAMPLES))

    def test_probability_agrees_with_scipys_permutation_test(self):
        def gap(first, second, axis):
            return first.mean(axis=axis) - second.mean(axis=axis)

        exact = stats.permutation_test((SKEWED[0], OTHER[0]), gap, permutation_type="samples", vectorized=True)
        p = difference([PromptScores(SKEWED)], [PromptScores(OTHER)]).p
        assert p == pytest.approx(exact.pvalue, abs=4 * math.sqrt(2 * exact.pvalue / statistics.RESAMPLES))

    def test_probability_of_weighted_geometric_means_swaps_scores_with_their_weights(self):
        logs, tokens = np.array([[1.0, 2.0, 0.5], [1.5, 2.2, 1.4]]), np.array([[3.0, 9.0, 2.0], [4.0, 5.0, 6.0]])
        first, second = (PromptScores(np.exp(logs[k])[None], tokens[k][None], "geometric") for k in (0, 1))

        def gap(swaps):
            of = [
                math.exp(
                    sum(logs[side ^ swap, i] * tokens[side ^ swap, i] for i, swap in enumerate(swaps))
                    / sum(tokens[side ^ swap, i] for i, swap in enumerate(swaps))
                )
                for side in (0, 1)
            ]
            return of[1] - of[0]

        gaps = np.array([gap(swaps) for swaps in itertools.product((0, 1), repeat=3)])
        observed = gap((0, 0, 0))
        exact = 2 * min((gaps >= observed - 1e-9).mean(), (gaps <= observed + 1e-9).mean())
        assert difference([first], [second]).p == pytest.approx(exact, abs=0.02)

    def test_counts_swaps_that_give_the_same_difference_as_no_less_extreme(self):
        # Two prompts of five seeds: tenths that floats can't hold. The four swaps give +x, 0, 0 and -x.
        first, second = np.array([[0.1, 0.7]] * 5), np.array([[0.3, 0.9]] * 5)
        assert difference([PromptScores(first)], [PromptScores(second)]).p == pytest.approx(0.5, abs=0.02)

    def test_is_never_impossible(self):
        estimate = difference([PromptScores(np.zeros((1, 200)))], [PromptScores(np.ones((1, 200)))])
        assert estimate.p == pytest.approx(2 / (statistics.RESAMPLES + 1))

    def test_of_a_model_with_itself_is_nothing(self):
        estimate = difference([PromptScores(SKEWED)], [PromptScores(SKEWED)])
        assert (estimate.value, estimate.interval, estimate.p) == (0.0, (0.0, 0.0), 1.0)

    def test_of_one_prompt_is_no_evidence(self):
        estimate = difference([PromptScores(np.array([[1.0]]))], [PromptScores(np.array([[9.0]]))])
        assert (estimate.value, estimate.interval, estimate.p) == (8.0, None, 1.0)

    def test_turned_around_changes_sign_alone(self):
        there = difference([PromptScores(SKEWED)], [PromptScores(OTHER)])
        back = difference([PromptScores(OTHER)], [PromptScores(SKEWED)])
        assert (back.value, back.p) == pytest.approx((-there.value, there.p), abs=0.02)

    def test_probability_is_uniform_where_nothing_differs(self, monkeypatch):
        monkeypatch.setattr(statistics, "RESAMPLES", 199)
        rng, probabilities = np.random.default_rng(2), []
        for _ in range(400):
            shared = rng.gamma(1, 20, (1, 40))
            pair = [[PromptScores(shared + rng.normal(0, 5, shared.shape))] for _ in range(2)]
            probabilities.append(statistics._p_value(*pair))
        assert stats.kstest(probabilities, "uniform").pvalue > 0.001
        assert np.mean(np.array(probabilities) <= 0.05) <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 400)


class TestHolm:
    def test_of_a_worked_example(self):
        # 0.005 * 4, 0.01 * 3, then 0.03 * 2; 0.04 * 1 may not fall below the one before.
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_stops_at_one_and_keeps_equals_equal(self):
        assert holm([0.6, 0.6, 0.9]) == [1.0, 1.0, 1.0]

    def test_of_one_and_of_none_changes_nothing(self):
        assert (holm([0.03]), holm([])) == ([0.03], [])


def test_the_same_scores_give_the_same_numbers():
    first, second = ([PromptScores(SKEWED)], [PromptScores(OTHER)])
    assert difference(first, second) == difference(first, second)


class TestWithoutWeight:
    SCORES = np.array([[1.0, 2.0, 6.0]])

    def test_of_any_prompt_all_count_alike(self):
        part = PromptScores(self.SCORES, np.zeros((1, 3)))
        assert mean([part]) == pytest.approx(3.0)
        assert interval([part]) == interval([PromptScores(self.SCORES)])
        assert difference([part], [part]).p == 1.0

    def test_of_a_side_after_a_swap_nothing_is_significant(self):
        first = PromptScores(self.SCORES, np.array([[0.0, 0.0, 4.0]]))
        second = PromptScores(self.SCORES, np.array([[1.0, 0.0, 0.0]]))
        estimate = difference([first], [second])
        assert (estimate.value, estimate.interval, estimate.p) == (-5.0, None, 1.0)


def test_numbers_that_overflow_warn_of_nothing(recwarn):
    scores = np.array([[1e300, 2e300, 3e305]])
    estimate = interval([PromptScores(scores, None, "geometric")])
    assert estimate is not None
    assert not recwarn.list
