"""Cosines of spans and how far two models agree on them, against float64 loops and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from mta_framework.runs.span_geometry import agreement, cosines


def test_cosines_are_those_of_the_vectors_and_a_zero_vector_is_like_nothing():
    angles = cosines(torch.tensor([[3.0, 0.0], [1.0, 1.0], [-2.0, 0.0], [0.0, 0.0]]))
    half = math.sqrt(0.5)
    expected = [[1, half, -1, 0], [half, 1, -half, 0], [-1, -half, 1, 0], [0, 0, 0, 0]]
    assert angles == pytest.approx(np.array(expected))


def test_agreement_is_pearsons_correlation_over_the_pairs_within_texts():
    generator = np.random.default_rng(0)
    matrices = [generator.normal(size=(count, count)) for count in (4, 1, 3)]
    other = [generator.normal(size=(count, count)) for count in (4, 1, 3)]
    pairs = [
        [text[i, j] for text in texts for i in range(len(text)) for j in range(i + 1, len(text))]
        for texts in (matrices, other)
    ]
    assert len(pairs[0]) == 9
    assert agreement(matrices, other) == pytest.approx(stats.pearsonr(*pairs).statistic)
    assert agreement(matrices, matrices) == pytest.approx(1.0)
    assert agreement(matrices, [-text for text in matrices]) == pytest.approx(-1.0)


def test_agreement_needs_three_pairs_that_are_not_all_alike():
    two, three = np.eye(2), np.array([[1, 0.5, 0.1], [0.5, 1, 0.2], [0.1, 0.2, 1]])
    assert agreement([two, two], [two, two]) is None
    assert agreement([three], [np.ones((3, 3))]) is None


def test_spans_of_one_direction_are_alike_whatever_rounding_says():
    lengths = torch.arange(1.0, 7.0).unsqueeze(1)
    alike = [cosines(torch.tensor([0.1, 0.7, -0.3]) * lengths)]
    assert np.ptp(alike[0]) > 0
    other = [cosines(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)))]
    assert agreement(alike, other) is None
    assert agreement(other, alike) is None
