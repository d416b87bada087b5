"""Squared logits: the contract of every base loss, and the formula."""

import pytest

from mta_framework import ModelShape, Progress
from mta_framework.registry import discover
from mta_framework.testing import BaseLossContract, batch_of, random_example, random_states
from mta_hello.squared_logits import SquaredLogits


class TestContract(BaseLossContract):
    @pytest.fixture(params=[20.0, 0.5])
    def plugin(self, request):
        return SquaredLogits(SquaredLogits.Params(cap=request.param))


def computed(student, teacher, batch, **options):
    (term,) = SquaredLogits(SquaredLogits.Params(**options)).compute(student, teacher, batch, Progress(0, 1, 0.0))
    return term.sum.item()


@pytest.fixture
def batch():
    return batch_of(random_example(7, 3), random_example(4, 1, seed=1))


def logits(states, batch):
    hidden = states.final_BTD.double().flatten(0, 1)[batch.position_N]
    return hidden @ states.head.weight_VD.double().T


@pytest.mark.parametrize("cap", [20.0, 1.5])
def test_it_computes_its_formula(batch, cap):
    student = random_states(batch, ModelShape(2, 8))
    teacher = random_states(batch, ModelShape(3, 5), seed=1)
    total = 0.0
    for rows in zip(logits(student, batch).tolist(), logits(teacher, batch).tolist(), strict=True):
        student_row, teacher_row = ([min(max(value - sum(row) / len(row), -cap), cap) for value in row] for row in rows)
        total += sum((a - b) ** 2 for a, b in zip(student_row, teacher_row, strict=True)) / len(student_row) / 2
    assert computed(student, teacher, batch, cap=cap) == pytest.approx(total, rel=1e-5)


def test_the_same_model_has_no_distance(batch):
    teacher = random_states(batch, ModelShape(3, 5), seed=1)
    assert computed(teacher, teacher, batch) == 0


def test_it_is_found_once_the_distribution_is_installed():
    registered = discover().find("base_losses", "squared_logits", "this test")
    assert registered.plugin is SquaredLogits
