"""Whose states tokens are weighed by, and how often."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mta_framework import ImportanceEstimator
from mta_framework.alignment import Alignment, WeightedTerm
from mta_framework.types import LayerPair, ModelShape, States
from mta_plugins.alignment_terms.dsa import DSA

LENGTHS = [5, 4]
SPANS = [[(0, 2), (2, 5), (1, 3)], [(0, 1), (1, 4)]]
PAIRS = [LayerPair(1, 1, "words"), LayerPair(1, 2, "words"), LayerPair(2, 2, "words")]


class Recorder(ImportanceEstimator):
    """Weights by the first entry of the final state; knows what it was asked."""

    NAME = "recorder"

    def __init__(self):
        super().__init__(self.Params())
        self.asked = []

    def weigh(self, states, layer, mask_BT):
        self.asked.append((states.final_BTD.shape[-1], layer))
        return (states.final_BTD[..., 0].detach().abs() + 0.1).float() * mask_BT


class ByTeacher(Recorder):
    BY_TEACHER = True


def _states(width, seed, length=5):
    generator = torch.Generator().manual_seed(seed)
    layers = {layer: torch.randn(2, length, width, generator=generator) for layer in (1, 2)}
    return States(layers[2], layers, None)


def _alignment(importance, pairs=PAIRS):
    terms = [WeightedTerm(DSA(DSA.Params()), 2.0)]
    return Alignment(pairs, importance, terms, ModelShape(2, 4), ModelShape(2, 6))


def test_each_model_is_weighed_once_at_each_of_its_key_layers(make_batch):
    importance = Recorder()
    _alignment(importance)(_states(4, 1), _states(6, 2), make_batch(LENGTHS, SPANS, 5))
    assert sorted(importance.asked) == [(4, 1), (4, 2), (6, 1), (6, 2)]


def test_by_teacher_the_teacher_alone_is_weighed_once_for_all_layers_and_both_sides(make_batch):
    class Given(ImportanceEstimator):
        NAME = "given"

        def weigh(self, states, layer, mask_BT):
            return (teacher.final_BTD[..., 0].abs() + 0.1) * mask_BT

    importance, student, teacher = ByTeacher(), _states(4, 1), _states(6, 2)
    batch = make_batch(LENGTHS, SPANS, 5)
    terms = _alignment(importance)(student, teacher, batch)
    assert [width for width, _ in importance.asked] == [6]
    expected = _alignment(Given(Given.Params()))(student, teacher, batch)
    assert [term.sum.item() for term in terms] == [term.sum.item() for term in expected]


def test_by_teacher_a_student_with_other_tokens_is_weighed_by_its_own_states(make_batch):
    importance = ByTeacher()
    student_batch = make_batch(LENGTHS, SPANS, 5)
    teacher_batch = make_batch([6, 5], [[(0, 3), (3, 6), (1, 4)], [(0, 2), (2, 5)]], 6)
    (term,) = _alignment(importance, PAIRS[:1])(
        _states(4, 1), _states(6, 2, 6), replace(student_batch, teacher=teacher_batch)
    )
    assert sorted(width for width, _ in importance.asked) == [4, 6]
    assert term.sum.item() == pytest.approx(
        _by_hand(_states(4, 1), _states(6, 2, 6), student_batch, teacher_batch), rel=1e-5
    )


def _by_hand(student, teacher, student_batch, teacher_batch):
    total = 0.0
    for text in range(2):
        vectors, weights = [], None
        for states, spans in ((student, SPANS), (teacher, [[(0, 3), (3, 6), (1, 4)], [(0, 2), (2, 5)]])):
            token = states.final_BTD[text, :, 0].double().abs() + 0.1
            hidden = states.layers[1][text].double()
            vectors.append([(token[a:b] @ hidden[a:b]) / token[a:b].sum() for a, b in spans[text]])
            weights = [token[a:b].sum() for a, b in spans[text]]
        above = below = 0.0
        for i, j in ((i, j) for i in range(len(weights)) for j in range(len(weights)) if i != j):
            angles = [torch.cosine_similarity(side[i], side[j], dim=0) for side in vectors]
            above += weights[i] * weights[j] * (angles[0] - angles[1]) ** 2
            below += weights[i] * weights[j]
        total += (above / below).item()
    return total
