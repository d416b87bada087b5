"""Linear CKA by the minibatch estimator, against its definition."""

from __future__ import annotations

import math

import pytest
import torch

from mta_framework import InputError
from mta_framework.alignment.linear_cka import linear_cka


def _rows(*sizes, seed=0):
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _hsic(one, other):
    """Song et al. 2012, Eq. 5, term by term."""
    n = len(one)
    k, h = ([[0.0 if i == j else float(x[i] @ x[j]) for j in range(n)] for i in range(n)] for x in (one, other))
    trace = sum(k[i][j] * h[j][i] for i in range(n) for j in range(n))
    sums = sum(map(sum, k)) * sum(map(sum, h)) / ((n - 1) * (n - 2))
    product = sum(sum(k[i][j] for i in range(n)) * sum(h[j]) for j in range(n))
    return (trace + sums - 2 * product / (n - 2)) / (n * (n - 3))


def test_values_are_those_of_the_definition_over_minibatches_of_unlike_size():
    student = [[_rows(n, width, seed=n + width) for width in (3, 5)] for n in (4, 7, 6)]
    teacher = [[_rows(n, width, seed=9 * n + width) for width in (4, 2, 6)] for n in (4, 7, 6)]
    similarity = linear_cka(zip(student, teacher, strict=True))

    def mean(one, other):
        return sum(_hsic(a, b) for a, b in zip(one, other, strict=True)) / 3

    for side, values in ((teacher, similarity.across), (student, similarity.within)):
        for i, row in enumerate(values):
            for j, value in enumerate(row):
                rows, other = [batch[i] for batch in student], [batch[j] for batch in side]
                expected = mean(rows, other) / math.sqrt(mean(rows, rows) * mean(other, other))
                assert value == pytest.approx(expected, rel=1e-9)


def test_a_layer_turned_scaled_and_shifted_is_the_same_layer():
    rows = _rows(40, 8)
    rotation = torch.linalg.qr(_rows(8, 8, seed=1))[0]
    similarity = linear_cka([([rows, _rows(40, 8, seed=2)], [3 * rows @ rotation + 5])])
    assert similarity.across[0][0] == pytest.approx(1)
    assert abs(similarity.across[1][0]) < 0.2
    assert [similarity.within[0][0], similarity.within[1][1]] == pytest.approx([1, 1])


def test_small_minibatches_give_what_a_large_one_gives_but_for_noise():
    hidden = _rows(4096, 6)
    mixed = hidden @ _rows(6, 6, seed=1) + 0.5 * _rows(4096, 6, seed=2)
    whole = linear_cka([([hidden], [mixed])]).across[0][0]
    parts = linear_cka(([a], [b]) for a, b in zip(hidden.split(8), mixed.split(8), strict=True)).across[0][0]
    assert 0.2 < whole < 0.9
    assert parts == pytest.approx(whole, abs=0.03)


def test_a_layer_that_makes_the_same_of_everything_is_like_none():
    similarity = linear_cka([([torch.ones(9, 3)], [_rows(9, 4)])])
    assert similarity.across == ((0.0,),)


def test_minibatches_of_fewer_than_four_are_left_out():
    rows, few = ([_rows(9, 3)], [_rows(9, 4, seed=1)]), ([_rows(3, 3)], [_rows(3, 4)])
    assert linear_cka([few, rows]) == linear_cka([rows])


@pytest.mark.parametrize("minibatches", [[], [([torch.ones(3, 2)], [torch.ones(3, 2)])]])
def test_fewer_than_four_items_cannot_be_compared(minibatches):
    with pytest.raises(
        InputError, match=r"^alignment.layers: has too few spans .*; expected at least 4 spans in some batch\. Take"
    ):
        linear_cka(minibatches)
