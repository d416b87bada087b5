"""The jsd base loss."""

from __future__ import annotations

import pydantic
import pytest
import torch

from mta_framework import TOKENS, Batch, Head, Progress, States
from mta_plugins.base_losses.jsd import JSD

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


def _kl(first, second):
    return (first * (first / second).log()).sum()


@pytest.mark.parametrize(
    "options", [{}, {"beta": 0.1}, {"beta": 0.9}, {"divergence": "total_variation"}], ids=lambda options: str(options)
)
def test_term_is_the_divergence_summed_over_supervised_tokens(options):
    student, teacher, beta = _states(5, 0), _states(6, 1), options.get("beta", 0.5)
    (term,) = JSD(JSD.Params(**options)).compute(student, teacher, _batch(), PROGRESS)
    q, p = _probabilities(student), _probabilities(teacher)
    middle = beta * p + (1 - beta) * q
    expected = beta * _kl(p, middle) + (1 - beta) * _kl(q, middle)
    if "divergence" in options:
        expected = (p - q).abs().sum() / 2
    assert (term.name, term.unit, term.weight) == ("jsd", TOKENS, 1.0)
    assert term.sum.item() == pytest.approx(expected.item(), rel=1e-5)
    inputs = student.final_BTD, student.head.weight_VD
    for got, wanted in zip(torch.autograd.grad(term.sum, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("divergence", ["jensen_shannon", "total_variation"])
def test_nothing_supervised_is_zero_with_zero_gradients(divergence):
    student = _states(5, 0)
    (term,) = JSD(JSD.Params(divergence=divergence)).compute(student, _states(6, 1), _batch([]), PROGRESS)
    term.sum.backward()
    assert term.sum.item() == 0
    assert not student.final_BTD.grad.any()
    assert not student.head.weight_VD.grad.any()


def test_teacher_with_a_padded_vocabulary_counts_on_the_common_part():
    student, teacher = _states(5, 0), _states(6, 1, vocabulary=16)
    (term,) = JSD(JSD.Params()).compute(student, teacher, _batch(), PROGRESS)
    q, p = _probabilities(student), _probabilities(teacher)
    expected = (_kl(p, (p + q) / 2) + _kl(q, (p + q) / 2)) / 2
    assert term.sum.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "responders"),
    [({}, None), ({"policy": "on_policy", "fraction": 0.3}, ("student",)), ({"policy": "adaptive"}, ("student",))],
)
def test_batches_choose_the_policy(options, responders):
    policy = JSD(JSD.Params.model_validate({"batches": options} if options else {})).batch_policy()
    assert (policy and policy.RESPONDERS) == responders


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"divergence": "total_variation", "beta": 0.3}, "beta has no effect"),
        ({"beta": 0}, "beta"),
        ({"beta": 1}, "beta"),
        ({"divergence": "kl"}, "divergence"),
        ({"batches": {"policy": "pairs"}}, "batches"),
    ],
)
def test_options_out_of_range_or_without_effect_are_refused(options, named):
    with pytest.raises(pydantic.ValidationError, match=named):
        JSD.Params.model_validate(options)


def test_options_with_every_default_spelt_out_are_accepted():
    params = JSD.Params(divergence="total_variation")
    assert JSD.Params.model_validate_json(params.model_dump_json()) == params
