"""The teacher's certainty as importance."""

from __future__ import annotations

import math

import pytest
import torch

from mta_framework import Head, States
from mta_plugins.importance_estimators.entropy import Entropy

LENGTHS = (6, 3, 1)


def _states(vocabulary=13, dtype=torch.float32, **head):
    generator = torch.Generator().manual_seed(1)
    final_BTD = torch.randn(3, 6, 8, generator=generator).to(dtype)
    return States(final_BTD, {}, Head(torch.randn(vocabulary, 8, generator=generator).to(dtype), **head))


def _mask(lengths=LENGTHS, width=6):
    return (torch.arange(width) < torch.tensor(lengths)[:, None]).long()


def _weigh(states, mask_BT):
    return Entropy(Entropy.Params()).weigh(states, 1, mask_BT)


def _certainty(logits):
    """One minus the entropy over its largest value, term by term."""
    powers = [math.exp(logit - max(logits)) for logit in logits]
    shares = [power / sum(powers) for power in powers]
    return 1 + sum(share * math.log(share) for share in shares) / math.log(len(shares))


@pytest.mark.parametrize("head", [{}, {"scale": 0.3}, {"softcap": 2.0}, {"bias_V": torch.linspace(-1, 1, 13)}])
def test_weight_is_the_certainty_of_what_follows_each_token(head):
    states = _states(**head)
    logits_BTV = states.final_BTD.double() @ states.head.weight_VD.double().T + head.get("bias_V", torch.zeros(1))
    logits_BTV = logits_BTV * head.get("scale", 1)
    if "softcap" in head:
        logits_BTV = 2 * (logits_BTV / 2).tanh()
    weight_BT = _weigh(states, _mask())
    for text, length in enumerate(LENGTHS):
        expected = [_certainty(logits_BTV[text, token].tolist()) for token in range(length)]
        assert weight_BT[text].tolist() == pytest.approx(expected + [0.0] * (6 - length), rel=1e-5)


def test_a_sure_teacher_weighs_one_and_an_undecided_one_never_below_zero():
    sure = States(torch.ones(1, 1, 4), {}, Head(100 * torch.eye(4)[:, :1].expand(4, 4)))
    assert _weigh(sure, torch.ones(1, 1, dtype=torch.int64)).item() == pytest.approx(1)
    for vocabulary in (3, 7, 1000, 49152):
        undecided = States(torch.ones(1, 2, 4), {}, Head(torch.ones(vocabulary, 4)))
        weight_BT = _weigh(undecided, torch.ones(1, 2, dtype=torch.int64))
        assert (weight_BT >= 0).all()
        assert weight_BT.max().item() == pytest.approx(0, abs=1e-5)


def test_weights_are_float32_without_gradient_for_bf16_states_of_a_teacher_in_inference_mode():
    with torch.inference_mode():
        states = _states(dtype=torch.bfloat16)
    weight_BT = _weigh(states, _mask())
    assert weight_BT.dtype == torch.float32
    assert not weight_BT.requires_grad
    torch.testing.assert_close(weight_BT, _weigh(_states(), _mask()), rtol=0.05, atol=0.01)


def test_it_weighs_by_the_teacher():
    assert Entropy.BY_TEACHER
