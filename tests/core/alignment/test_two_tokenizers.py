"""Alignment where teacher and student cut the texts into other tokens: the spans are what they share."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from mta_framework.alignment import Alignment, WeightedTerm
from mta_framework.types import LayerPair, ModelShape
from mta_plugins.alignment_terms.dsa import DSA
from mta_plugins.alignment_terms.hid import Hid
from mta_plugins.importance_estimators.uniform import Uniform

STUDENT_SPANS, TEACHER_SPANS = [[(0, 2), (2, 5)], [(1, 2)], []], [[(0, 1), (1, 7)], [(2, 6)], []]


def _hidden(texts, tokens, width, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(texts, tokens, width, generator=generator, dtype=torch.float64)


def _alignment(weights="importance"):
    torch.manual_seed(0)
    terms = [WeightedTerm(DSA(DSA.Params()), 2.0), WeightedTerm(Hid(Hid.Params(weights=weights)), 0.2)]
    shapes = ModelShape(1, 4), ModelShape(1, 6)
    return Alignment((LayerPair(1, 1, "words"),), Uniform(Uniform.Params()), terms, *shapes).double()


@pytest.fixture
def two_sided(make_batch):
    teacher_batch = make_batch([7, 6, 3], TEACHER_SPANS, 7)
    return replace(make_batch([5, 2, 4], STUDENT_SPANS, 5), teacher=teacher_batch)


@pytest.mark.parametrize("weights", ["importance", "equal"])
def test_terms_are_those_of_span_vectors(two_sided, make_states, weights):
    student_BTD, teacher_BTD = _hidden(3, 5, 4, seed=1), _hidden(3, 7, 6, seed=2)
    alignment = _alignment(weights)
    dsa, hid = alignment(make_states(student_BTD.requires_grad_()), make_states(teacher_BTD), two_sided)

    def vectors(hidden_BTD, spans):
        return [[hidden_BTD[text, start:end].mean(0) for start, end in ranges] for text, ranges in enumerate(spans)]

    student_vectors, teacher_vectors = vectors(student_BTD, STUDENT_SPANS), vectors(teacher_BTD, TEACHER_SPANS)
    # All tokens weigh the same: a span weighs as many tokens as the teacher has in it.
    (projection,) = alignment.term_modules["hid"]
    distance = [
        [1 - functional.cosine_similarity(projection(u), v, dim=0) for u, v in zip(*text, strict=True)]
        for text in zip(student_vectors, teacher_vectors, strict=True)
    ]
    expected = (distance[0][0] * 1 + distance[0][1] * 6) / 7 + distance[1][0]
    if weights == "equal":  # as often as the student has tokens in the span, over all texts
        expected = distance[0][0] * 2 + distance[0][1] * 3 + distance[1][0] * 1
        assert two_sided.counts[hid.unit] == 6
    assert hid.sum.item() == pytest.approx(expected.item(), rel=1e-6)
    turn = functional.cosine_similarity(*student_vectors[0], dim=0) - functional.cosine_similarity(
        *teacher_vectors[0], dim=0
    )
    assert dsa.sum.item() == pytest.approx(turn.square().item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(hid.sum + dsa.sum, student_BTD)
    assert gradient[0].abs().sum() > 0
    assert gradient[2].abs().sum() == 0


def test_texts_without_spans_on_either_side_give_zeros_on_the_graph(make_batch, make_states):
    batch = replace(make_batch([2], [[]], 2), teacher=make_batch([3], [[]], 3))
    student_BTD = _hidden(1, 2, 4, seed=1).requires_grad_()
    alignment = _alignment()
    total = sum(term.sum for term in alignment(make_states(student_BTD), make_states(_hidden(1, 3, 6, seed=2)), batch))
    assert total.item() == 0
    gradients = torch.autograd.grad(total, [student_BTD, *alignment.parameters()])
    assert not any(gradient.any() for gradient in gradients)
