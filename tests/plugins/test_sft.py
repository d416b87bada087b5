"""The sft base loss."""

from __future__ import annotations

import pytest
import torch

from mta_framework import TOKENS, Batch, Head, Progress, States
from mta_plugins.base_losses.sft import SFT

PROGRESS = Progress(step=0, total_steps=1, epoch=0.0)


def _compute(position, target):
    generator = torch.Generator().manual_seed(0)
    final = torch.randn(2, 4, 5, generator=generator).requires_grad_()
    states = States(final, {}, Head(torch.randn(11, 5, generator=generator).requires_grad_()))
    ids = torch.ones(2, 4, dtype=torch.int64)
    batch = Batch(ids, ids, position, target, counts={TOKENS: len(position)})
    return states, SFT(SFT.Params()).compute(states, None, batch, PROGRESS)


def test_term_is_the_cross_entropy_of_the_next_tokens_without_a_teacher():
    assert SFT.NEEDS_TEACHER is False
    states, (term,) = _compute(torch.tensor([1, 6]), torch.tensor([4, 9]))
    probability = (states.final_BTD[[0, 1], [1, 2]].double() @ states.head.weight_VD.T.double()).softmax(-1)
    expected = -probability[[0, 1], [4, 9]].log().sum()
    assert (term.name, term.unit) == ("sft", TOKENS)
    assert term.sum.item() == pytest.approx(expected.item(), rel=1e-6)
    inputs = states.final_BTD, states.head.weight_VD
    for got, wanted in zip(torch.autograd.grad(term.sum, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


def test_nothing_supervised_is_zero_with_zero_gradients():
    nothing = torch.zeros(0, dtype=torch.int64)
    states, (term,) = _compute(nothing, nothing)
    term.sum.backward()
    assert term.sum.item() == 0
    assert not states.head.weight_VD.grad.any()
