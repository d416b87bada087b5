"""Skewed divergences, Jensen-Shannon and total variation against their formulas, and what always holds of them."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mta_framework.chunked_loss import (
    HeadInputs,
    chunked_sum,
    forward_kl,
    jensen_shannon,
    reverse_kl,
    select_supervised,
    skew_forward_kl,
    skew_reverse_kl,
    total_variation,
)
from mta_framework.types import Batch, Head, States

DOUBLE = torch.float64
V = 7

KERNELS = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "skew_forward_kl": partial(skew_forward_kl, skew=0.1),
    "skew_reverse_kl": partial(skew_reverse_kl, skew=0.1),
    "skew_reverse_kl_detached": partial(skew_reverse_kl, skew=0.1, detach_mixture=True),
    "jensen_shannon": partial(jensen_shannon, beta=0.3),
    "total_variation": total_variation,
}
every_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)
sharpness = st.sampled_from([0.01, 1.0, 30.0, 1000.0])
shares = st.floats(0.001, 0.999)


def _logits(seed, scale=1.0, rows=3, vocabulary=V):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(2, rows, vocabulary, generator=generator, dtype=DOUBLE)


def _kl(first, second):
    return sum(a * math.log(a / b) for a, b in zip(first, second, strict=True))


def _mixture(share, first, second):
    return [share * a + (1 - share) * b for a, b in zip(first, second, strict=True)]


def _formulas(q, p, share):
    """Each divergence of two lists of probabilities, written out."""
    between = _mixture(share, p, q)
    return {
        skew_forward_kl: _kl(p, _mixture(share, p, q)),
        skew_reverse_kl: _kl(q, _mixture(share, q, p)),
        jensen_shannon: share * _kl(p, between) + (1 - share) * _kl(q, between),
    }


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("kernel", [skew_forward_kl, skew_reverse_kl, jensen_shannon])
def test_values_follow_the_formula(kernel, share):
    student, teacher = _logits(0, scale=3.0)
    values = kernel(student, teacher, share)
    for row in range(len(student)):
        q, p = student[row].softmax(-1).tolist(), teacher[row].softmax(-1).tolist()
        assert values[row].item() == pytest.approx(_formulas(q, p, share)[kernel], rel=1e-9, abs=1e-13)


def test_total_variation_is_the_largest_difference_in_the_probability_of_any_event():
    student, teacher = _logits(0, scale=3.0)
    for row, value in enumerate(total_variation(student, teacher).tolist()):
        difference = (teacher[row].softmax(-1) - student[row].softmax(-1)).tolist()
        assert value == pytest.approx(sum(part for part in difference if part > 0), rel=1e-12)


@pytest.mark.parametrize("kernel", [skew_forward_kl, skew_reverse_kl, jensen_shannon])
def test_a_share_for_each_row_is_that_rows_share(kernel):
    student, teacher = _logits(1)
    shares_n = torch.tensor([0.01, 0.1, 0.7], dtype=DOUBLE)
    rows = [
        kernel(student[row : row + 1], teacher[row : row + 1], share) for row, share in enumerate(shares_n.tolist())
    ]
    torch.testing.assert_close(kernel(student, teacher, shares_n), torch.cat(rows))


@every_kernel
@few
@given(seed=seeds, scale=sharpness)
def test_never_negative_and_zero_for_equal_distributions(kernel, seed, scale):
    student, teacher = _logits(seed, scale)
    assert (kernel(student, teacher) >= -1e-12).all()
    assert kernel(student, student + 5).abs().max() < 1e-9


@few
@given(seed=seeds, scale=sharpness, share=shares)
def test_upper_bounds(seed, scale, share):
    student, teacher = _logits(seed, scale)
    assert (total_variation(student, teacher) <= 1 + 1e-12).all()
    assert (jensen_shannon(student, teacher, 0.5) <= math.log(2) + 1e-12).all()
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert (jensen_shannon(student, teacher, share) <= entropy + 1e-12).all()
    for kernel in (skew_forward_kl, skew_reverse_kl):
        assert (kernel(student, teacher, share) <= -math.log(share) + 1e-12).all()


@few
@given(seed=seeds, scale=sharpness)
def test_without_skew_the_divergences_are_the_plain_ones_gradients_included(seed, scale):
    student, teacher = _logits(seed, scale)
    for skewed, plain in ((skew_forward_kl, forward_kl), (skew_reverse_kl, reverse_kl)):
        results = []
        for kernel in (partial(skewed, skew=0.0), partial(skewed, skew=torch.zeros(len(student))), plain):
            leaf = student.clone().requires_grad_()
            values = kernel(leaf, teacher)
            results.append((values, torch.autograd.grad(values.sum(), leaf)[0]))
        for values, gradient in results[:2]:
            torch.testing.assert_close(values, results[2][0])
            torch.testing.assert_close(gradient, results[2][1])


@few
@given(seed=seeds, scale=sharpness, share=shares)
def test_roles_swapped_are_mirrored(seed, scale, share):
    student, teacher = _logits(seed, scale)
    torch.testing.assert_close(skew_reverse_kl(student, teacher, share), skew_forward_kl(teacher, student, share))
    torch.testing.assert_close(jensen_shannon(student, teacher, share), jensen_shannon(teacher, student, 1 - share))
    torch.testing.assert_close(total_variation(student, teacher), total_variation(teacher, student))


def test_jensen_shannon_over_a_small_share_tends_to_that_sides_divergence():
    student, teacher = _logits(2)
    share = 1e-6
    torch.testing.assert_close(
        jensen_shannon(student, teacher, share) / share, forward_kl(student, teacher), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(
        jensen_shannon(student, teacher, 1 - share) / share, reverse_kl(student, teacher), rtol=1e-4, atol=0
    )


@every_kernel
def test_gradients_are_those_of_finite_differences(kernel):
    student, teacher = _logits(3)
    if getattr(kernel, "keywords", {}).get("detach_mixture"):
        mixture = 0.1 * student.softmax(-1) + 0.9 * teacher.softmax(-1)

        def measured(logits):
            q = logits.softmax(-1)
            return (q * (q.log() - mixture.log())).sum(-1)
    else:
        measured = partial(_swapped, kernel, teacher)
    gradient = torch.autograd.grad(kernel(leaf := student.clone().requires_grad_(), teacher).sum(), leaf)[0]
    step = 1e-6
    for token in range(V):
        shift = step * torch.eye(V, dtype=DOUBLE)[token]
        expected = (measured(student + shift) - measured(student - shift)) / (2 * step)
        torch.testing.assert_close(gradient[:, token], expected, rtol=1e-6, atol=1e-8)


def _swapped(kernel, teacher, student):
    return kernel(student, teacher)


@every_kernel
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_extreme_logits_keep_values_and_gradients_finite(kernel, dtype):
    teacher = torch.tensor([[1e4, -1e4, 0.0], [0.0, 0.0, -1e4], [-200.0, 0.0, 200.0]], dtype=dtype)
    student = torch.tensor([[-1e4, 1e4, 0.0], [0.0, -1e4, 0.0], [-200.0, 0.0, 200.0]], dtype=dtype).requires_grad_()
    values = kernel(student, teacher)
    gradient = torch.autograd.grad(values.sum(), student)[0]
    assert torch.isfinite(values).all()
    assert torch.isfinite(gradient).all()
    assert values[2].item() == pytest.approx(0, abs=1e-6)


def test_distributions_apart_reach_the_bounds():
    student, teacher = torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 1e4]])
    assert skew_forward_kl(student, teacher, 0.1).item() == pytest.approx(math.log(10), rel=1e-6)
    assert skew_reverse_kl(student, teacher, 0.01).item() == pytest.approx(math.log(100), rel=1e-6)
    assert skew_forward_kl(student, teacher, 0.0).item() == pytest.approx(1e4)
    assert skew_forward_kl(student, teacher, 1 - 1e-6).item() == pytest.approx(1e-6, rel=0.2)
    assert jensen_shannon(student, teacher, 0.5).item() == pytest.approx(math.log(2), rel=1e-6)
    assert total_variation(student, teacher).item() == 1


@every_kernel
@few
@given(seed=seeds, positions=st.integers(1, 9), chunk_size=st.integers(1, 12))
def test_every_chunk_size_gives_the_same_sum_and_gradients(kernel, seed, positions, chunk_size):
    generator = torch.Generator().manual_seed(seed)
    hidden = [torch.randn(positions, 4, generator=generator, dtype=DOUBLE) for _ in range(2)]
    weights = [torch.randn(V, 4, generator=generator, dtype=DOUBLE) for _ in range(2)]
    inputs = hidden[0].requires_grad_(), weights[0].requires_grad_()
    chunked = chunked_sum(
        kernel, HeadInputs(hidden[0], Head(weights[0])), HeadInputs(hidden[1], Head(weights[1])), chunk_size=chunk_size
    )
    dense = kernel(hidden[0] @ weights[0].T, hidden[1] @ weights[1].T).sum()
    torch.testing.assert_close(chunked, dense)
    for got, wanted in zip(torch.autograd.grad(chunked, inputs), torch.autograd.grad(dense, inputs), strict=True):
        torch.testing.assert_close(got, wanted)


@every_kernel
@few
@given(seed=seeds, padding=st.integers(0, 3))
def test_padding_and_unsupervised_positions_change_nothing(kernel, seed, padding):
    """Two texts of five tokens, whatever is behind them and wherever nothing is supervised."""
    generator = torch.Generator().manual_seed(seed)
    head, texts = Head(torch.randn(V, 4, generator=generator, dtype=DOUBLE)), [(0, 2), (0, 3), (1, 1)]

    def total(states, tokens):
        ids = torch.zeros(2, tokens, dtype=torch.int64)
        position_N = torch.tensor([text * tokens + token for text, token in texts])
        batch = Batch(ids, ids, position_N, torch.zeros(3, dtype=torch.int64))
        return chunked_sum(kernel, *(select_supervised(States(final, {}, head), batch) for final in states))

    finals = [torch.randn(2, 5, 4, generator=generator, dtype=DOUBLE) for _ in range(2)]
    disturbed = []
    for final in finals:
        other = torch.randn(2, 5 + padding, 4, generator=generator, dtype=DOUBLE)
        for text, token in texts:
            other[text, token] = final[text, token]
        disturbed.append(other.requires_grad_())
    value = total(disturbed, 5 + padding)
    torch.testing.assert_close(value, total(finals, 5))
    touched = torch.autograd.grad(value, disturbed[0])[0].abs().sum(-1).nonzero().tolist()
    assert {tuple(index) for index in touched} <= set(texts)
