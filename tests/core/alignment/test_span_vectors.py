"""Span vectors: what the alignment pools, and what geometry and loss are computed from."""

from __future__ import annotations

import torch

from mta_framework import ImportanceEstimator
from mta_framework.alignment import Alignment
from mta_framework.types import LayerPair, ModelShape

LENGTHS = [9, 5, 7]
SPANS = [[(0, 2), (2, 6), (4, 9)], [(1, 3), (3, 5)], []]


class FromStates(ImportanceEstimator):
    """A weight for each token that depends on its own state."""

    NAME = "from_states"

    def weigh(self, states, layer, mask_BT):
        return (states.layers[layer][..., 0].abs() + 0.1).float() * mask_BT


def hidden(width, seed):
    return torch.randn(3, 9, width, generator=torch.Generator().manual_seed(seed))


def test_span_vectors_are_pooled_as_the_loss_pools_them(make_batch, make_states):
    student_BTD, teacher_BTD = hidden(4, 0), hidden(6, 1)
    importance = FromStates(FromStates.Params())
    alignment = Alignment([LayerPair(1, 1, "words")], importance, [], ModelShape(1, 4), ModelShape(1, 6))
    batch = make_batch(LENGTHS, SPANS, 9)
    ((student_SD, teacher_SD),) = alignment.span_vectors(make_states(student_BTD), make_states(teacher_BTD), batch)
    for vector_SD, states_BTD in ((student_SD, student_BTD), (teacher_SD, teacher_BTD)):
        expected = []
        for text, ranges in enumerate(SPANS):
            for start, end in ranges:
                states = states_BTD[text, start:end].double()
                weights = states[:, 0].abs() + 0.1
                expected.append((weights[:, None] * states).sum(0) / weights.sum())
        assert torch.allclose(vector_SD.double(), torch.stack(expected), atol=1e-5)
