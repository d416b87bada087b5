"""The kl base loss."""

from __future__ import annotations

from dataclasses import replace

import pydantic
import pytest
import torch

from mta_framework import TOKENS, Batch, Head, Progress, States
from mta_plugins.base_losses.kl import KL

PROGRESS = Progress(step=0, total_steps=1, epoch=0.0)
POSITION, TARGET = [0, 2, 7], [3, 0, 10]


def _states(width, seed, vocabulary=11):
    generator = torch.Generator().manual_seed(seed)
    final = torch.randn(2, 4, width, generator=generator).requires_grad_(seed == 0)
    return States(final, {}, Head(torch.randn(vocabulary, width, generator=generator).requires_grad_(seed == 0)))


def _batch(count=3):
    ids = torch.ones(2, 4, dtype=torch.int64)
    chosen = torch.tensor(POSITION[:count], dtype=torch.int64), torch.tensor(TARGET[:count], dtype=torch.int64)
    return Batch(ids, ids, *chosen, counts={TOKENS: count})


def _logits(states, temperature=1.0):
    return (states.final_BTD.flatten(0, 1)[POSITION] @ states.head.weight_VD.T).double() / temperature


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reverse": True},
        {"temperature": 2.5},
        {"cross_entropy": 0.3},
        {"reverse": True, "temperature": 0.7, "cross_entropy": 0.9},
    ],
)
def test_term_is_the_mixture_of_divergence_and_cross_entropy_on_supervised_tokens(options):
    student, teacher = _states(5, 0), _states(6, 1)
    temperature, share = options.get("temperature", 1.0), options.get("cross_entropy", 0.0)
    (term,) = KL(KL.Params(**options)).compute(student, teacher, _batch(), PROGRESS)
    q, p = (_logits(states, temperature).softmax(-1) for states in (student, teacher))
    first, second = (q, p) if options.get("reverse") else (p, q)
    divergence = temperature**2 * (first * (first.log() - second.log())).sum()
    data = -_logits(student).softmax(-1)[range(3), TARGET].log().sum()
    expected = (1 - share) * divergence + share * data
    assert (term.name, term.unit, term.weight) == ("kl", TOKENS, 1.0)
    assert term.sum.item() == pytest.approx(expected.item(), rel=1e-5)
    inputs = student.final_BTD, student.head.weight_VD
    for got, wanted in zip(torch.autograd.grad(term.sum, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_nothing_supervised_is_zero_with_zero_gradients():
    student = _states(5, 0)
    (term,) = KL(KL.Params(cross_entropy=0.5)).compute(student, _states(6, 1), _batch(0), PROGRESS)
    term.sum.backward()
    assert term.sum.item() == 0
    assert not student.final_BTD.grad.any()
    assert not student.head.weight_VD.grad.any()


def test_teacher_with_a_padded_vocabulary_counts_on_the_common_part():
    student, teacher = _states(5, 0), _states(6, 1, vocabulary=16)
    cut = States(teacher.final_BTD, {}, Head(teacher.head.weight_VD[:11]))
    sums = [KL(KL.Params()).compute(student, states, _batch(), PROGRESS)[0].sum for states in (teacher, cut)]
    assert sums[0].item() == pytest.approx(sums[1].item(), rel=1e-6)


@pytest.mark.parametrize("options", [{"temperature": 0}, {"cross_entropy": 1}, {"cross_entropy": -0.1}, {"beta": 1}])
def test_options_out_of_range_or_unknown_are_refused(options):
    with pytest.raises(pydantic.ValidationError):
        KL.Params(**options)


def test_batches_are_the_data_unless_asked_otherwise():
    assert KL(KL.Params()).batch_policy() is None
    policy = KL(KL.Params.model_validate({"batches": {"policy": "on_policy"}})).batch_policy()
    assert policy.RESPONDERS == ("student",)


def test_cross_entropy_leaves_out_what_the_student_wrote():
    student, teacher = _states(5, 0), _states(6, 1)
    mixed = KL(KL.Params(cross_entropy=0.4))

    def total(loss, *by_student):
        batch = replace(_batch(), by_student_B=torch.tensor(by_student))
        return loss.compute(student, teacher, batch, PROGRESS)[0].sum.item()

    # Positions 0 and 2 are of the first text, 7 is of the second.
    q, p = (_logits(states).softmax(-1) for states in (student, teacher))
    divergence_N = (p * (p.log() - q.log())).sum(-1)
    cross_entropy_N = -q[range(3), TARGET].log()
    expected = 0.6 * divergence_N[:2].sum() + 0.4 * cross_entropy_N[:2].sum() + divergence_N[2]
    assert total(mixed, False, True) == pytest.approx(expected.item(), rel=1e-5)
    assert total(mixed, True, True) == pytest.approx(total(KL(KL.Params()), True, True), rel=1e-6)
