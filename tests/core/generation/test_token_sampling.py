"""The choice of a token by a random number of its own."""

from __future__ import annotations

import random

import pytest
import torch

from mta_framework.errors import RunError
from mta_framework.generation.sampling_settings import Sampling
from mta_framework.generation.token_sampling import SamplingProcessor, sample_inverse_cdf, sample_tokens

NEARLY_ONE = 1 - 2**-53
GREEDY, SAMPLED = Sampling(0.0, 1.0, 8, 99), Sampling(1.0, 1.0, 8, 99)


def uniform(*values):
    """float64, one per row."""
    return torch.tensor(values, dtype=torch.float64)


def test_token_is_the_first_whose_cumulated_probability_exceeds_the_number():
    scores = torch.log(torch.tensor([0.25, 0.5, 0.25])).repeat(6, 1)
    uniforms = uniform(0.0, 0.2499, 0.2501, 0.7499, 0.7501, NEARLY_ONE)
    assert sample_inverse_cdf(scores, uniforms).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("u", [0.0, 0.5, NEARLY_ONE])
def test_token_of_probability_zero_is_never_chosen(u):
    generator = torch.Generator().manual_seed(1)
    scores = 5 * torch.randn(200, 1000, generator=generator)
    scores[torch.rand(200, 1000, generator=generator) < 0.9] = -torch.inf
    scores[:, [0, -1]] = -torch.inf
    chosen = sample_inverse_cdf(scores, uniform(*[u] * 200))
    assert torch.isfinite(scores.gather(1, chosen.unsqueeze(1))).all()


def test_number_just_below_one_chooses_a_token_for_any_scores():
    scores = 30 * torch.randn(500, 3000, generator=torch.Generator().manual_seed(2))
    chosen = sample_inverse_cdf(scores, uniform(*[NEARLY_ONE] * 500))
    # float64 underflows only far below these scores, so the last token is the right one but for rounding.
    probability = torch.softmax(scores.double(), dim=-1)
    rest = torch.stack([row[token + 1 :].sum() for row, token in zip(probability, chosen, strict=True)])
    assert rest.max() < 1e-12
    assert (chosen < 3000).all()


def test_single_token_is_chosen_by_every_number():
    scores = torch.full((3, 7), -torch.inf)
    scores[:, 4] = -3.0
    assert sample_inverse_cdf(scores, uniform(0.0, 0.5, NEARLY_ONE)).tolist() == [4, 4, 4]


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_scores_that_are_no_numbers_stop_the_run(broken):
    scores = torch.zeros(2, 5)
    scores[1, 3] = broken
    with pytest.raises(RunError, match="NaN or infinite"):
        sample_inverse_cdf(scores, uniform(0.5, 0.5))


def test_only_the_chosen_token_is_left():
    choice = SamplingProcessor(SAMPLED, [random.Random(seed) for seed in (11, 12)], size=9)
    left = choice(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 9))
    assert torch.isfinite(left).sum(dim=1).tolist() == [1, 1]


def test_numbers_are_those_of_the_seed_one_after_the_other():
    scores = torch.zeros(2, 10)
    generators = [random.Random(5), random.Random(6)]
    chosen = [sample_tokens(scores, SAMPLED, generators, 10).tolist() for _ in range(3)]
    expected = [random.Random(5), random.Random(6)]
    assert chosen == [[int(10 * generator.random()) for generator in expected] for _ in range(3)]


@pytest.mark.parametrize("vocabulary", [1, 255, 256, 257, 1000, 49152])
def test_token_is_that_of_one_sum_over_the_whole_vocabulary(vocabulary):
    generator = torch.Generator().manual_seed(vocabulary)
    scores = 4 * torch.randn(40, vocabulary, generator=generator)
    u = torch.rand(40, generator=generator, dtype=torch.float64)
    cumulated = torch.softmax(scores.double(), dim=-1).cumsum(dim=-1)
    expected = torch.searchsorted(cumulated, u.unsqueeze(1), right=True).squeeze(1).clamp(max=vocabulary - 1)
    assert sample_inverse_cdf(scores, u).tolist() == expected.tolist()


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_ids_that_are_no_tokens_are_never_chosen(sampling):
    scores = torch.arange(12.0).repeat(50, 1)
    chosen = sample_tokens(scores, sampling, [random.Random(seed) for seed in range(50)], size=7)
    assert chosen.max() == 6


def test_greedy_choice_takes_no_numbers():
    generator = random.Random(3)
    assert sample_tokens(torch.tensor([[1.0, 3.0, 2.0]]), GREEDY, [generator], 3).tolist() == [1]
    assert generator.random() == random.Random(3).random()


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_logits_that_are_no_numbers_stop_the_run_at_any_temperature(sampling, broken):
    scores = torch.zeros(2, 5)
    scores[1, 3] = broken
    with pytest.raises(RunError, match="NaN or infinite"):
        sample_tokens(scores, sampling, [random.Random(1), random.Random(2)], 5)
