"""The choice of a token by a random number of its own."""

from __future__ import annotations

import random

import pytest
import torch

from mta_framework.errors import RunError
from mta_framework.generation.draws import SeededDraw, pick

NEARLY_ONE = 1 - 2**-53


def numbers(*values):
    """float64, one per row."""
    return torch.tensor(values, dtype=torch.float64)


def test_token_is_the_first_whose_cumulated_probability_exceeds_the_number():
    scores = torch.log(torch.tensor([0.25, 0.5, 0.25])).repeat(6, 1)
    assert pick(scores, numbers(0.0, 0.2499, 0.2501, 0.7499, 0.7501, NEARLY_ONE)).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("number", [0.0, 0.5, NEARLY_ONE])
def test_token_of_probability_zero_is_never_chosen(number):
    generator = torch.Generator().manual_seed(1)
    scores = 5 * torch.randn(200, 1000, generator=generator)
    scores[torch.rand(200, 1000, generator=generator) < 0.9] = -torch.inf
    scores[:, [0, -1]] = -torch.inf
    chosen = pick(scores, numbers(*[number] * 200))
    assert torch.isfinite(scores.gather(1, chosen.unsqueeze(1))).all()


def test_number_just_below_one_chooses_a_token_for_any_scores():
    scores = 30 * torch.randn(500, 3000, generator=torch.Generator().manual_seed(2))
    chosen = pick(scores, numbers(*[NEARLY_ONE] * 500))
    # float64 underflows only far below these scores, so the last token is the right one but for rounding.
    probability = torch.softmax(scores.double(), dim=-1)
    rest = torch.stack([row[token + 1 :].sum() for row, token in zip(probability, chosen, strict=True)])
    assert rest.max() < 1e-12
    assert (chosen < 3000).all()


def test_single_token_is_chosen_by_every_number():
    scores = torch.full((3, 7), -torch.inf)
    scores[:, 4] = -3.0
    assert pick(scores, numbers(0.0, 0.5, NEARLY_ONE)).tolist() == [4, 4, 4]


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_scores_that_are_no_numbers_stop_the_run(broken):
    scores = torch.zeros(2, 5)
    scores[1, 3] = broken
    with pytest.raises(RunError, match="NaN or infinite"):
        pick(scores, numbers(0.5, 0.5))


def test_only_the_chosen_token_is_left():
    draw = SeededDraw([11, 12], prompt_width=3, max_new_tokens=4, device=torch.device("cpu"))
    left = draw(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 9))
    assert torch.isfinite(left).sum(dim=1).tolist() == [1, 1]


def test_numbers_are_those_of_the_seed_at_each_position():
    scores = torch.zeros(2, 10)
    draw = SeededDraw([5, 6], prompt_width=2, max_new_tokens=3, device=torch.device("cpu"))
    chosen = [draw(torch.zeros(2, 2 + step, dtype=torch.int64), scores).argmax(dim=1).tolist() for step in range(3)]
    streams = [random.Random(5), random.Random(6)]
    assert chosen == [[int(10 * stream.random()) for stream in streams] for _ in range(3)]
