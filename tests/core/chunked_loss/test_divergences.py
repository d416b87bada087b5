"""Kernels against their formulas in float64."""

from __future__ import annotations

import math

import pytest
import torch

from mta_framework.chunked_loss import cross_entropy, forward_kl, reverse_kl


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(3)
    return [3 * torch.randn(5, 13, generator=generator, dtype=torch.float64) for _ in range(2)]


def _distribution(row, temperature):
    powers = [math.exp(value / temperature) for value in row.tolist()]
    return [power / sum(powers) for power in powers]


def _kl(first, second):
    return sum(a * math.log(a / b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_forward_and_reverse_follow_the_formula_times_temperature_squared(logits, temperature):
    student, teacher = logits
    for row in range(len(student)):
        q, p = _distribution(student[row], temperature), _distribution(teacher[row], temperature)
        forward, reverse = temperature**2 * _kl(p, q), temperature**2 * _kl(q, p)
        assert forward_kl(student, teacher, temperature)[row].item() == pytest.approx(forward, rel=1e-10)
        assert reverse_kl(student, teacher, temperature)[row].item() == pytest.approx(reverse, rel=1e-10)


def test_gradient_of_forward_kl_is_temperature_times_the_difference_of_the_distributions(logits):
    student, teacher = logits
    forward_kl(student.requires_grad_(), teacher, 3.0).sum().backward()
    for row in range(len(student)):
        q, p = _distribution(student[row].detach(), 3.0), _distribution(teacher[row], 3.0)
        expected = torch.tensor([3.0 * (a - b) for a, b in zip(q, p, strict=True)], dtype=torch.float64)
        torch.testing.assert_close(student.grad[row], expected)


def test_equal_distributions_have_no_divergence_whatever_is_added_to_the_logits(logits):
    student = logits[0]
    assert forward_kl(student, student + 7).abs().max() < 1e-12
    assert reverse_kl(student, student + 7).abs().max() < 1e-12


def test_cross_entropy_is_the_negative_log_probability_of_the_target(logits):
    targets = torch.tensor([0, 12, 5, 5, 1])
    expected = [-math.log(_distribution(row, 1.0)[target]) for row, target in zip(logits[0], targets, strict=True)]
    torch.testing.assert_close(cross_entropy(logits[0], targets), torch.tensor(expected, dtype=torch.float64))


def test_extreme_logits_stay_finite():
    student, teacher = torch.tensor([[1e4, -1e4, 0.0]]), torch.tensor([[-1e4, 1e4, 0.0]])
    for kernel in (forward_kl, reverse_kl):
        assert kernel(student, teacher).item() == pytest.approx(2e4)
