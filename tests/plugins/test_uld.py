"""The uld base loss."""

from __future__ import annotations

import pytest
import torch

from mta_framework import MATCHED_POSITIONS, TOKENS, Batch, Head, Progress, States
from mta_plugins.base_losses.uld import ULD

PROGRESS = Progress(step=0, total_steps=1, epoch=0.0)
MATCHED_STUDENT, MATCHED_TEACHER = [0, 3, 6], [1, 2, 9]


def _states(width, seed, vocabulary, tokens):
    generator = torch.Generator().manual_seed(seed)
    final = torch.randn(2, tokens, width, generator=generator).requires_grad_(seed == 0)
    return States(final, {}, Head(torch.randn(vocabulary, width, generator=generator).requires_grad_(seed == 0)))


def _batch(positions=(0, 2, 3, 6), matched=True):
    student_ids, teacher_ids = torch.ones(2, 4, dtype=torch.int64), torch.ones(2, 5, dtype=torch.int64)
    position_N, nothing = torch.tensor(positions, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    counts = {TOKENS: len(positions), MATCHED_POSITIONS: len(MATCHED_STUDENT)}
    sides = {
        "teacher": Batch(teacher_ids, teacher_ids, nothing, nothing),
        "matched_R": torch.tensor(MATCHED_STUDENT),
        "matched_teacher_R": torch.tensor(MATCHED_TEACHER),
    }
    return Batch(student_ids, student_ids, position_N, position_N % 3, counts=counts, **(sides if matched else {}))


def _compute(batch, student, teacher, **options):
    return ULD(ULD.Params(**options)).compute(student, teacher, batch, PROGRESS)


def _probabilities(states, rows):
    return (states.final_BTD.flatten(0, 1)[rows] @ states.head.weight_VD.T).double().softmax(-1)


def _distance(q, p):
    """By hand: walk down both rankings, a missing rank has no mass."""
    total = torch.zeros((), dtype=torch.float64)
    for student_row, teacher_row in zip(q, p, strict=True):
        student_row, teacher_row = sorted(student_row, reverse=True), sorted(teacher_row, reverse=True)
        for rank in range(max(len(student_row), len(teacher_row))):
            high = student_row[rank] if rank < len(student_row) else torch.zeros(())
            low = teacher_row[rank] if rank < len(teacher_row) else torch.zeros(())
            total = total + (high - low).abs()
    return total


@pytest.mark.parametrize("vocabulary", [7, 11, 16], ids=["smaller teacher", "as large", "larger teacher"])
def test_distance_is_between_ranked_probabilities_at_matched_positions(vocabulary):
    student, teacher = _states(5, 0, 11, tokens=4), _states(6, 1, vocabulary, tokens=5)
    distance, entropy = _compute(_batch(), student, teacher)
    expected = _distance(_probabilities(student, MATCHED_STUDENT), _probabilities(teacher, MATCHED_TEACHER))
    assert (distance.name, distance.unit, distance.weight) == ("uld", MATCHED_POSITIONS, 1.5)
    assert (entropy.name, entropy.unit, entropy.weight) == ("uld_cross_entropy", TOKENS, 1.0)
    assert distance.sum.item() == pytest.approx(expected.item(), rel=1e-5)
    inputs = student.final_BTD, student.head.weight_VD
    for got, wanted in zip(
        torch.autograd.grad(distance.sum, inputs), torch.autograd.grad(expected, inputs), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    chosen = _probabilities(student, [0, 2, 3, 6]).log()[range(4), [0, 2, 0, 0]]
    assert entropy.sum.item() == pytest.approx(-chosen.sum().item(), rel=1e-5)


def test_same_distribution_under_other_names_is_at_distance_zero():
    student = _states(5, 0, 11, tokens=4)
    renamed = States(student.final_BTD.detach(), {}, Head(student.head.weight_VD.detach()[torch.randperm(11)]))
    (distance,) = _compute(_batch(matched=False), student, renamed, cross_entropy=0)
    assert distance.unit == TOKENS
    assert distance.sum.item() == pytest.approx(0, abs=1e-5)


def test_shared_tokenizer_compares_all_supervised_positions():
    student, teacher = _states(5, 0, 11, tokens=4), _states(6, 1, 11, tokens=4)
    (distance,) = _compute(_batch(matched=False), student, teacher, cross_entropy=0)
    expected = _distance(_probabilities(student, [0, 2, 3, 6]), _probabilities(teacher, [0, 2, 3, 6]))
    assert distance.sum.item() == pytest.approx(expected.item(), rel=1e-5)
