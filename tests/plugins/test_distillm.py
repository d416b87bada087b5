"""The distillm base loss."""

from __future__ import annotations

import pydantic
import pytest
import torch

from mta_framework import TOKENS, Batch, Head, Progress, States
from mta_plugins.base_losses.distillm import DistiLLM

PROGRESS = Progress(step=0, total_steps=1, epoch=0.0)
POSITION = [0, 2, 7]


def _states(width, seed, vocabulary=11):
    generator = torch.Generator().manual_seed(seed)
    final = torch.randn(2, 4, width, generator=generator).requires_grad_(seed == 0)
    return States(final, {}, Head(torch.randn(vocabulary, width, generator=generator).requires_grad_(seed == 0)))


def _batch(positions=POSITION):
    ids, position_N = torch.ones(2, 4, dtype=torch.int64), torch.tensor(positions, dtype=torch.int64)
    return Batch(ids, ids, position_N, torch.zeros_like(position_N), counts={TOKENS: len(positions)})


def _probabilities(states, vocabulary=11):
    return (states.final_BTD.flatten(0, 1)[POSITION] @ states.head.weight_VD[:vocabulary].T).double().softmax(-1)


@pytest.mark.parametrize(
    "options",
    [{}, {"skew": 0.5}, {"skew": 0.0}, {"divergence": "forward"}, {"divergence": "forward", "skew": 0.0}],
    ids=lambda options: str(options),
)
def test_term_is_the_skewed_divergence_summed_over_supervised_tokens(options):
    student, teacher, skew = _states(5, 0), _states(6, 1), options.get("skew", 0.1)
    (term,) = DistiLLM(DistiLLM.Params(**options)).compute(student, teacher, _batch(), PROGRESS)
    q, p = _probabilities(student), _probabilities(teacher)
    first, second = (p, q) if "divergence" in options else (q, p)
    expected = (first * (first / (skew * first + (1 - skew) * second)).log()).sum()
    assert (term.name, term.unit, term.weight) == ("distillm", TOKENS, 1.0)
    assert term.sum.item() == pytest.approx(expected.item(), rel=1e-5)
    inputs = student.final_BTD, student.head.weight_VD
    for got, wanted in zip(torch.autograd.grad(term.sum, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("divergence", ["forward", "reverse"])
def test_nothing_supervised_is_zero_with_zero_gradients(divergence):
    student = _states(5, 0)
    (term,) = DistiLLM(DistiLLM.Params(divergence=divergence)).compute(student, _states(6, 1), _batch([]), PROGRESS)
    term.sum.backward()
    assert term.sum.item() == 0
    assert not student.final_BTD.grad.any()
    assert not student.head.weight_VD.grad.any()


def test_teacher_with_a_padded_vocabulary_counts_on_the_common_part():
    student, teacher = _states(5, 0), _states(6, 1, vocabulary=16)
    (term,) = DistiLLM(DistiLLM.Params()).compute(student, teacher, _batch(), PROGRESS)
    q, p = _probabilities(student), _probabilities(teacher)
    expected = (q * (q / (0.1 * q + 0.9 * p)).log()).sum()
    assert term.sum.item() == pytest.approx(expected.item(), rel=1e-5)


def test_it_brings_adaptive_batches_along_unless_asked_otherwise():
    policy = DistiLLM(DistiLLM.Params()).batch_policy()
    assert policy.NEEDS_VALIDATION
    assert DistiLLM(DistiLLM.Params()).batch_policy() is not policy
    fixed = DistiLLM.Params.model_validate({"batches": {"policy": "fixed"}})
    assert DistiLLM(fixed).batch_policy() is None


@pytest.mark.parametrize("options", [{"skew": 1}, {"skew": -0.1}, {"divergence": "kl"}, {"beta": 0.5}])
def test_options_out_of_range_or_unknown_are_refused(options):
    with pytest.raises(pydantic.ValidationError):
        DistiLLM.Params(**options)
