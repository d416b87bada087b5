"""Unbiased CKA of a text's spans, against sums over distinct spans in float64."""

from __future__ import annotations

from itertools import permutations
from math import perm

import pytest
import torch

from mta_framework import LayerPair, ModelShape, States, texts_with_spans
from mta_framework.testing import batch_of, random_example, random_states, term_sums
from mta_plugins.alignment_terms.cka import LinearCKA

PAIRS = (LayerPair(1, 2, "words"),)
FIVE = [(0, 2), (1, 3), (2, 6), (5, 8), (7, 9)]


def _term():
    return LinearCKA(LinearCKA.Params())


def _texts(*spans, length=9):
    return batch_of(*(random_example(length, 1, spans={"words": ranges}) for ranges in spans))


def _of_tokens(student_SD, teacher_SD):
    """The term for one text in which every token is a span."""
    batch = _texts([(token, token + 1) for token in range(len(student_SD))], length=len(student_SD))
    sides = [States(rows[None], {1: rows[None], 2: rows[None]}, None) for rows in (student_SD, teacher_SD)]
    (value,) = term_sums(_term(), PAIRS, *sides, batch)
    return value


def _hsic(first, second):
    """Song et al. 2012: U-statistics over distinct pairs, triples and quadruples of items."""
    kernels = [rows @ rows.T for rows in (first, second)]
    count = len(first)
    pairs = sum(kernels[0][i, j] * kernels[1][i, j] for i, j in permutations(range(count), 2)) / perm(count, 2)
    triples = sum(kernels[0][i, j] * kernels[1][i, k] for i, j, k in permutations(range(count), 3)) / perm(count, 3)
    quadruples = sum(kernels[0][i, j] * kernels[1][k, m] for i, j, k, m in permutations(range(count), 4))
    return pairs + quadruples / perm(count, 4) - 2 * triples


def _biased_term(first, second):
    centred = [rows - rows.mean(0) for rows in (first, second)]
    kernels = [(rows @ rows.T).flatten() for rows in centred]
    return 1 - torch.cosine_similarity(*kernels, dim=0)


def _unit_rows(count, width, seed):
    rows = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=1, keepdim=True)


def test_value_is_one_minus_the_ratio_of_unbiased_estimates_over_texts_of_at_least_four_spans():
    batch = _texts(FIVE, FIVE[:3], [], FIVE[1:])
    student, teacher = (random_states(batch, ModelShape(2, width), seed=width) for width in (6, 9))
    expected = 0.0
    for text, spans in ((0, FIVE), (3, FIVE[1:])):
        sides = []
        for hidden in (student.layers[1], teacher.layers[2]):
            vectors = torch.stack([hidden[text, start:end].double().mean(0) for start, end in spans])
            sides.append(vectors / vectors.norm(dim=1, keepdim=True))
        across, *within = (_hsic(*pair) for pair in ((sides[0], sides[1]), (sides[0],) * 2, (sides[1],) * 2))
        expected += 1 - (across / (within[0] * within[1]).sqrt()).item()
    (value,) = term_sums(_term(), PAIRS, student, teacher, batch)
    assert value.item() == pytest.approx(expected, rel=1e-4)
    assert _term().unit("words") == texts_with_spans("words", 4)
    assert batch.counts[_term().unit("words")] == 2


def test_spans_that_differ_by_rotation_and_length_alone_give_zero():
    teacher = _unit_rows(7, 6, 1)
    turn = torch.linalg.qr(_unit_rows(6, 6, 2))[0]
    lengths = torch.arange(1.0, 8.0)[:, None]
    assert abs(_of_tokens(lengths * teacher @ turn, teacher).item()) < 1e-5


@pytest.mark.parametrize(("count", "draws"), [(5, 300), (15, 100), (60, 40)])
def test_unrelated_spans_give_one_and_half_related_ones_a_half_however_few_there_are(count, draws):
    """In 64 dimensions; the bounds are four standard errors of a cosine in the space of centred kernels."""
    values, related, biased = [], [], []
    for draw in range(draws):
        teacher, noise = _unit_rows(count, 64, 2 * draw), _unit_rows(count, 64, 2 * draw + 1)
        values.append(_of_tokens(noise, teacher))
        related.append(_of_tokens(teacher + noise, teacher))
        biased.append(_biased_term(noise, teacher))
    tolerance = 4 * (2 / (count * (count - 3)) / draws) ** 0.5
    assert torch.stack(values).mean().item() == pytest.approx(1, abs=tolerance)
    # A cosine between unit vectors is 1/2 for a sum of two orthogonal ones, up to a bias that falls with their number.
    assert torch.stack(related).mean().item() == pytest.approx(0.5, abs=tolerance + 0.1)
    assert torch.stack(biased).mean().item() < (0.1 if count == 5 else 0.6)


def test_spans_that_are_all_alike_give_one_and_a_finite_gradient():
    student = torch.ones(6, 8).requires_grad_()
    value = _of_tokens(student, _unit_rows(6, 9, 1))
    value.backward()
    assert value.item() == pytest.approx(1, abs=1e-3)
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() < 1


def test_descent_along_the_gradient_lowers_it():
    student, teacher = _unit_rows(8, 6, 1).requires_grad_(), _unit_rows(8, 9, 2)
    value = _of_tokens(student, teacher)
    (gradient,) = torch.autograd.grad(value, student)
    lower = _of_tokens(student.detach() - 1e-3 * gradient, teacher)
    assert (value - lower).item() == pytest.approx(1e-3 * gradient.square().sum().item(), rel=0.05)
